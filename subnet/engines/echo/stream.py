"""One choice of the echo engine: a checksum of the tokens so far draws the next."""

from __future__ import annotations

from struct import pack
from zlib import crc32

import numpy as np

from subnet.engines.echo.vocabulary import BETWEEN, LONGEST, PIECES
from subnet.generation import Delta, FinishReason, Sampling, Start, TokenLogprobs
from subnet.wire.tensors import TokenIds

_BYTES = [pack("<i", token) for token in range(len(PIECES))]
# Odd numbers without a pattern: what differs in any bit differs in most of the higher ones of the product.
_SPREAD = 0x9E3779B97F4A7C15
_STRIDE = 0x2545F491


class Stream:
    """One choice under way; an answer without max_tokens has `size` tokens.

    The checksum of all tokens before it is its whole state, so it can start anywhere. Of the tokens that may come
    next, top_p leaves the likelier ones.
    """

    def __init__(self, prompt: TokenIds, start: Start, sampling: Sampling, size: int) -> None:
        self.choice = start.choice
        self._position = len(start.delivered)
        self._limit = max(size, sampling.min_tokens) if sampling.max_tokens is None else sampling.max_tokens
        self._reason: FinishReason = "stop" if sampling.max_tokens is None else "length"
        self._sampling = sampling
        self._top_p = sampling.top_p
        self._ends = frozenset(sampling.stop_tokens)
        self._state = crc32(_bytes(start.delivered), crc32(_bytes(prompt)))
        self._place = BETWEEN
        for token in np.concatenate([prompt[-LONGEST:], start.delivered])[-LONGEST:].tolist():
            self._place = self._place.after.get(token, BETWEEN)
        drawn = sampling.temperature > 0
        self._key = crc32(pack("<QI", (sampling.seed or 0) % 2**64, start.choice)) if drawn else 0
        self._stride = _STRIDE if drawn else 0

    def step(self) -> Delta:
        """The next token; the last one comes with the finish reason."""
        if self._position >= self._limit:
            return Delta(self.choice, [], self._logprobs([]), self._reason)
        dice = (((self._state ^ self._key) + self._position * self._stride) * _SPREAD) >> 24
        token = self._draw(dice)
        if token in self._ends and self._position >= self._sampling.min_tokens:
            return Delta(self.choice, [], self._logprobs([]), "stop")
        self._state = crc32(_BYTES[token], self._state)
        self._place = self._place.after.get(token, BETWEEN)
        self._position += 1
        logprobs = None if self._sampling.logprobs is None else self._logprobs([token])
        return Delta(self.choice, [token], logprobs, self._reason if self._position >= self._limit else None)

    def _draw(self, dice: int) -> int:
        draws = self._place.draws
        return draws[dice % (int(len(draws) * self._top_p) or 1)]

    def _logprobs(self, tokens: list[int]) -> list[TokenLogprobs] | None:
        width = self._sampling.logprobs
        if width is None:
            return None
        logprob = -(self._state % 1000) / 1000
        tops = tuple(logprob - 1 - i for i in range(width))
        return [
            TokenLogprobs(logprob, tuple((token + 1 + i) % len(PIECES) for i in range(width)), tops) for token in tokens
        ]


def _bytes(tokens: TokenIds) -> bytes:
    return tokens.astype("<i4").tobytes()
