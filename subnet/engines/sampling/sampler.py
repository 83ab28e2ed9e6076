"""Drawing a token from logits.

The draw is counter-based: its randomness is a hash of (seed, choice, position), so that a run carried on at any
position draws what an uninterrupted one would. Order: bias, penalties, bans, temperature, top_k, typical_p, top_p,
min_p. Where logits tie, the lower token id comes first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subnet.engines.sampling.truncation import Ids, top_k, truncate
from subnet.errors import EngineFailed
from subnet.generation import Sampling, TokenLogprobs

Logits = NDArray[np.float32]

_MASK = (1 << 64) - 1
_BLOCK = 256


class Sampler:
    """Draws the tokens of one choice. `output` are those it already has; `end_tokens` the model's own.

    Penalties follow the usual definitions: repetition counts prompt and output, frequency and presence the output
    (https://platform.openai.com/docs/guides/text-generation#frequency-and-presence-penalties).
    """

    def __init__(
        self,
        sampling: Sampling,
        choice: int,
        prompt: Iterable[int],
        output: Iterable[int],
        end_tokens: Collection[int],
        vocab_size: int,
    ) -> None:
        self._sampling = sampling
        self._stream = mix((sampling.seed or 0) ^ mix(choice))
        self._ends = np.array(sorted(end_tokens), np.intp)
        self._stops = np.array(sorted({*end_tokens, *sampling.stop_tokens}), np.intp)
        self._bias_ids = np.array(list(sampling.logit_bias), np.intp)
        self._bias = np.array(list(sampling.logit_bias.values()), np.float32)
        self._penalised = bool(
            sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
        )
        self._counts = np.zeros(vocab_size if self._penalised else 0, np.float32)
        self._seen = np.zeros(vocab_size if self._penalised else 0, np.bool_)
        self._position = 0
        if self._penalised:
            self._seen[np.fromiter(prompt, np.intp)] = True
        for token in output:
            self.append(token)

    def append(self, token: int) -> None:
        """The choice now has this token too."""
        self._position += 1
        if self._penalised:
            self._counts[token] += 1
            self._seen[token] = True

    def draw(self, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> int | None:
        """The next token; None if none is left to draw. `logits`, float32 of shape (vocab,), is left as it is."""
        logits = self._adjust(logits, allowed)
        best = int(logits.argmax())
        peak = logits[best]
        if np.isnan(peak):
            raise EngineFailed("the model returned NaN logits")
        if peak == -np.inf:
            return None
        if self._sampling.temperature == 0:
            return best
        weights = _weights(logits, peak, self._sampling.temperature)
        return _pick(weights, truncate(weights, self._sampling), self._uniform())

    def _uniform(self) -> float:
        return float(mix(self._stream ^ self._position) >> 11) * 2.0**-53

    def _adjust(self, logits: Logits, allowed: NDArray[np.bool_] | None) -> Logits:
        sampling = self._sampling
        logits = np.where(allowed, logits, np.float32(-np.inf)) if allowed is not None else logits.copy()
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        if self._penalised:
            self._penalise(logits)
        if sampling.ignore_eos:
            logits[self._ends] = -np.inf
        if self._position < sampling.min_tokens:
            logits[self._stops] = -np.inf
        return logits

    def _penalise(self, logits: Logits) -> None:
        sampling = self._sampling
        ids = np.flatnonzero(self._seen)
        seen, counts = logits[ids], self._counts[ids]
        factor = np.float32(sampling.repetition_penalty)
        seen = np.where(seen > 0, seen / factor, seen * factor)
        seen -= np.float32(sampling.frequency_penalty) * counts
        seen -= np.float32(sampling.presence_penalty) * (counts > 0)
        logits[ids] = seen


def _weights(logits: Logits, peak: np.float32, temperature: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        scaled: NDArray[np.float32] = np.exp((logits - peak) / np.float32(max(temperature, 1e-6)))
    return scaled


def _pick(weights: NDArray[np.float32], ids: Ids | None, uniform: float) -> int:
    """The token whose share of the total, laid out in order of ids, holds `uniform`."""
    if ids is not None:
        return int(ids[_share(weights[ids], uniform)[0]])
    # Blocks first: a running sum of the whole vocabulary in float64 takes longer than all the rest.
    starts = np.arange(0, len(weights), _BLOCK)
    block, left = _share(np.add.reduceat(weights, starts, dtype=np.float64), uniform)
    start = block * _BLOCK
    return start + _share(weights[start : start + _BLOCK], left)[0]


def _share(weights: NDArray[np.floating[Any]], uniform: float) -> tuple[int, float]:
    """The index whose share holds `uniform`, and how far into it that lies, from 0 to 1."""
    edges = np.cumsum(weights, dtype=np.float64)
    target = uniform * edges[-1]
    index = min(int(np.searchsorted(edges, target, side="right")), int(np.flatnonzero(weights)[-1]))
    return index, float((target - (edges[index] - weights[index])) / weights[index])


def logprobs_of(logits: Logits, token: int, width: int) -> TokenLogprobs:
    """Log-probabilities of the token and of the `width` likeliest, as the model gave them."""
    peak = float(logits.max())
    norm = peak + float(np.log(np.exp(logits - np.float32(peak)).sum(dtype=np.float64)))
    tops = top_k(logits, min(width, len(logits))) if width else np.empty(0, np.intp)
    tops = tops[np.argsort(-logits[tops], kind="stable")]
    return TokenLogprobs(
        float(logits[token]) - norm, tuple(tops.tolist()), tuple((logits[tops].astype(np.float64) - norm).tolist())
    )


def mix(value: int) -> int:
    """One step of splitmix64 (https://prng.di.unimi.it/splitmix64.c), from any integer to 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
