"""Streams of the echo engine with a logit bias or penalties."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from subnet.engines.echo.echo_stream import Stream
from subnet.engines.echo.echo_vocabulary import PIECES, TextState
from subnet.generation import Sampling, Start
from subnet.tensors import TokenIds

Logits = NDArray[np.float64]

_VOCAB_SIZE = len(PIECES)
_CANDIDATE_LOGIT = 4.0
_random = Random(1)
_MULTIPLIERS = np.array([_random.getrandbits(64) | 1 for _ in range(_VOCAB_SIZE)], np.uint64)


def needs_logits(sampling: Sampling) -> bool:
    """Return whether the sampling has penalties or a logit bias, which AdjustedStream applies."""
    penalised = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
    return bool(penalised or sampling.logit_bias)


class AdjustedStream(Stream):
    """Stream that draws from adjusted logits of the same candidates.

    The repetition penalty counts prompt and output, frequency and presence penalties the output only. A token that is
    no candidate can be drawn if its bias is positive.
    """

    def __init__(self, prompt: TokenIds, start: Start, sampling: Sampling, size: int | None) -> None:
        super().__init__(prompt, start, sampling, size)
        self._counts = np.bincount(_in_vocabulary(start.delivered), minlength=_VOCAB_SIZE)
        self._seen = np.bincount(_in_vocabulary(prompt), minlength=_VOCAB_SIZE) + self._counts > 0
        self._bias = np.zeros(_VOCAB_SIZE)
        for token, bias in sampling.logit_bias.items():
            if 0 <= token < _VOCAB_SIZE:
                self._bias[token] = bias
        self._logits_by_state: dict[TextState, Logits] = {}

    def _draw(self, random_bits: int) -> int:
        logits = self._logits_by_state.get(self._text_state)
        if logits is None:
            logits = self._logits_by_state[self._text_state] = self._base_logits()
        token = int(np.argmax(self._apply_penalties(logits) + _gumbel_noise(random_bits)))
        self._counts[token] += 1
        self._seen[token] = True
        return token

    def _base_logits(self) -> Logits:
        candidates = self._text_state.candidates
        weights = np.bincount(candidates[: int(len(candidates) * self._sampling.top_p) or 1], minlength=_VOCAB_SIZE)
        logits = np.where(weights > 0, _CANDIDATE_LOGIT + np.log(np.maximum(weights, 1)), -np.inf)
        return np.where(self._bias > 0, np.maximum(logits, 0.0), logits) + self._bias

    def _apply_penalties(self, logits: Logits) -> Logits:
        sampling, repetition = self._sampling, self._sampling.repetition_penalty
        repeated = np.where(logits > 0, logits / repetition, logits * repetition)
        penalty = sampling.frequency_penalty * self._counts + sampling.presence_penalty * (self._counts > 0)
        return np.where(self._seen, repeated, logits) - penalty


def _gumbel_noise(random_bits: int) -> Logits:
    """Return Gumbel noise: the argmax of logits plus noise is a draw from their softmax.

    https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    mixed = _MULTIPLIERS * np.uint64(random_bits % 2**64)
    uniform = ((mixed >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-54
    return -np.log(-np.log(uniform))


def _in_vocabulary(tokens: TokenIds) -> TokenIds:
    return tokens[tokens < _VOCAB_SIZE]
