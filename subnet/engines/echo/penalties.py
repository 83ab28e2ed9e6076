"""Choices of the echo engine whose draws are biased, or depend on how often tokens have come."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from subnet.engines.echo.stream import Stream
from subnet.engines.echo.vocabulary import PIECES, Place
from subnet.generation import Sampling, Start
from subnet.wire.tensors import TokenIds

Logits = NDArray[np.float64]

_SIZE = len(PIECES)
_LEAST = 4.0
_dice = Random(1)
_ODD = np.array([_dice.getrandbits(64) | 1 for _ in range(_SIZE)], np.uint64)


def adjusted(sampling: Sampling) -> bool:
    """Whether a choice needs what this file does."""
    penalised = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
    return bool(penalised or sampling.logit_bias)


class AdjustedStream(Stream):
    """Draws from the same tokens, by logits: repetition counts prompt and output, frequency and presence the output.

    A positive bias gives a chance to tokens that would never come.
    """

    def __init__(self, prompt: TokenIds, start: Start, sampling: Sampling, size: int) -> None:
        super().__init__(prompt, start, sampling, size)
        self._counts = np.bincount(_known(start.delivered), minlength=_SIZE)
        self._seen = np.bincount(_known(prompt), minlength=_SIZE) + self._counts > 0
        self._bias = np.zeros(_SIZE)
        for token, bias in sampling.logit_bias.items():
            if 0 <= token < _SIZE:
                self._bias[token] = bias
        self._logits: dict[Place, Logits] = {}

    def _draw(self, dice: int) -> int:
        logits = self._logits.get(self._place)
        if logits is None:
            logits = self._logits[self._place] = self._biased()
        token = int(np.argmax(self._penalised(logits) + _noise(dice)))
        self._counts[token] += 1
        self._seen[token] = True
        return token

    def _biased(self) -> Logits:
        draws = self._place.draws
        weights = np.bincount(draws[: int(len(draws) * self._sampling.top_p) or 1], minlength=_SIZE)
        logits = np.where(weights > 0, _LEAST + np.log(np.maximum(weights, 1)), -np.inf)
        return np.where(self._bias > 0, np.maximum(logits, 0.0), logits) + self._bias

    def _penalised(self, logits: Logits) -> Logits:
        sampling, factor = self._sampling, self._sampling.repetition_penalty
        repeated = np.where(logits > 0, logits / factor, logits * factor)
        lost = sampling.frequency_penalty * self._counts + sampling.presence_penalty * (self._counts > 0)
        return np.where(self._seen, repeated, logits) - lost


def _noise(dice: int) -> Logits:
    """Gumbel's: the largest sum is a draw by the softmax of the logits (https://en.wikipedia.org/wiki/Gumbel_distribution)."""
    mixed = _ODD * np.uint64(dice % 2**64)
    uniform = ((mixed >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-54
    return -np.log(-np.log(uniform))


def _known(tokens: TokenIds) -> TokenIds:
    return tokens[tokens < _SIZE]
