"""Token stream of one choice of the echo engine, drawn by a checksum of the tokens so far."""

from __future__ import annotations

from struct import pack
from zlib import crc32

import numpy as np

from subnet.engines.echo.echo_vocabulary import BETWEEN_CHARACTERS, MAX_CHARACTER_TOKENS, PIECES
from subnet.generation import Delta, FinishReason, Sampling, Start, TokenLogprobs
from subnet.tensors import TokenIds

DEFAULT_SIZE = 64
"""Number of tokens of an answer without a size and without max_tokens."""

_TOKEN_BYTES = [pack("<i", token) for token in range(len(PIECES))]
# Odd constants without a pattern: a difference in any bit changes most of the higher bits of the product.
_MIX = 0x9E3779B97F4A7C15
_POSITION_STRIDE = 0x2545F491


class Stream:
    """Token stream of one choice, which ends by itself after `size` tokens (None: not before max_tokens).

    Its state is the checksum of all tokens so far, so a stream can start at any token. top_p keeps the more likely of
    the candidates.
    """

    def __init__(self, prompt: TokenIds, start: Start, sampling: Sampling, size: int | None) -> None:
        self.choice = start.choice
        self._position = len(start.delivered)
        self._limit, self._limit_reason = _end(sampling, size)
        self._sampling = sampling
        self._top_p = sampling.top_p
        self._stop_tokens = frozenset(sampling.stop_tokens)
        self._checksum = crc32(_to_bytes(start.delivered), crc32(_to_bytes(prompt)))
        self._text_state = BETWEEN_CHARACTERS
        for token in np.concatenate([prompt[-MAX_CHARACTER_TOKENS:], start.delivered])[-MAX_CHARACTER_TOKENS:].tolist():
            self._text_state = self._text_state.next_states.get(token, BETWEEN_CHARACTERS)
        is_random = sampling.temperature > 0
        self._key = crc32(pack("<QI", (sampling.seed or 0) % 2**64, start.choice)) if is_random else 0
        self._stride = _POSITION_STRIDE if is_random else 0

    def step(self) -> Delta:
        """Generate the next token; the last one has the finish reason."""
        if self._position >= self._limit:
            return Delta(self.choice, [], self._logprobs([]), self._limit_reason)
        random_bits = (((self._checksum ^ self._key) + self._position * self._stride) * _MIX) >> 24
        token = self._draw(random_bits)
        if token in self._stop_tokens and self._position >= self._sampling.min_tokens:
            return Delta(self.choice, [], self._logprobs([]), "stop")
        self._checksum = crc32(_TOKEN_BYTES[token], self._checksum)
        self._text_state = self._text_state.next_states.get(token, BETWEEN_CHARACTERS)
        self._position += 1
        logprobs = None if self._sampling.logprobs is None else self._logprobs([token])
        return Delta(self.choice, [token], logprobs, self._limit_reason if self._position >= self._limit else None)

    def _draw(self, random_bits: int) -> int:
        candidates = self._text_state.candidates
        return candidates[random_bits % (int(len(candidates) * self._top_p) or 1)]

    def _logprobs(self, tokens: list[int]) -> list[TokenLogprobs] | None:
        width = self._sampling.logprobs
        if width is None:
            return None
        logprob = -(self._checksum % 1000) / 1000
        tops = tuple(logprob - 1 - i for i in range(width))
        return [
            TokenLogprobs(logprob, tuple((token + 1 + i) % len(PIECES) for i in range(width)), tops) for token in tokens
        ]


def _end(sampling: Sampling, size: int | None) -> tuple[int, FinishReason]:
    """Return the number of tokens of an answer, and why it ends there."""
    own, maximum = max(size or DEFAULT_SIZE, sampling.min_tokens), sampling.max_tokens
    if maximum is None:
        return own, "stop"
    ends_by_itself = size is not None and own < maximum and not sampling.ignore_eos
    return (own, "stop") if ends_by_itself else (maximum, "length")


def _to_bytes(tokens: TokenIds) -> bytes:
    return tokens.astype("<i4").tobytes()
