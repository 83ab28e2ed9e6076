"""Drawing a token from logits.

The draw is counter-based: its randomness is a hash of (seed, choice, position), so that a run carried on at any
position draws what an uninterrupted one would. Order: bias, penalties, bans, temperature, top_k, typical_p, top_p,
min_p. Where logits tie, the lower token id comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subnet.errors import EngineFailed
from subnet.generation import Sampling, TokenLogprobs

Logits = NDArray[np.float32]
Ids = NDArray[np.intp]

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
            raise EngineFailed("the model gave logits that are not numbers")
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


def truncate(weights: NDArray[np.float32], sampling: Sampling) -> Ids | None:
    """Ids, in ascending order, that top_k, typical_p, top_p and min_p leave; None for all. `weights` are
    probabilities times some factor, the largest of them 1."""
    ids: Ids | None = None
    if 0 < sampling.top_k < len(weights):
        ids = _top_k(weights, sampling.top_k)
    if sampling.typical_p < 1:
        ids = _within(weights, ids, lambda kept: _typical(kept, sampling.typical_p))
    if sampling.top_p < 1:
        ids = _within(weights, ids, lambda kept: _top_p(kept, sampling.top_p))
    if sampling.min_p > 0:
        ids = _within(weights, ids, lambda kept: np.flatnonzero(kept >= sampling.min_p))
    return ids


def _within(weights: NDArray[np.float32], ids: Ids | None, pick: Callable[[NDArray[np.float32]], Ids]) -> Ids:
    """What `pick` leaves of the tokens in `ids`."""
    return pick(weights) if ids is None else ids[pick(weights[ids])]


def _top_k(weights: NDArray[np.float32], k: int) -> Ids:
    return _heaviest(weights, np.partition(weights, -k)[-k], k)


def _top_p(weights: NDArray[np.float32], top_p: float) -> Ids:
    """The fewest tokens, likeliest first, that together reach top_p; at least one."""
    total = weights.sum(dtype=np.float64)
    # All tokens lighter than this together weigh less than 1 - top_p: none of them is needed.
    likely = weights[weights >= (1 - top_p) * total / len(weights) * 0.99]
    falling = np.sort(likely)[::-1]
    reached = np.cumsum(falling, dtype=np.float64) >= top_p * total
    count = int(reached.argmax()) + 1 if reached.any() else len(falling)
    return _heaviest(weights, falling[count - 1], count)


def _typical(weights: NDArray[np.float32], typical_p: float) -> Ids:
    """The fewest tokens, those first whose surprise is nearest to the expected one, that together reach typical_p."""
    likely = np.flatnonzero(weights)
    shares = weights[likely] / weights.sum(dtype=np.float64)
    surprise = -np.log(shares)
    distance = np.abs(surprise - (shares * surprise).sum())
    for nearest in _nearest(distance):
        reached = np.cumsum(shares[nearest]) >= typical_p
        if reached.any():
            return np.sort(likely[nearest[: int(reached.argmax()) + 1]])
    return likely


def _nearest(distance: NDArray[np.float64]) -> Iterator[Ids]:
    """Ids by rising distance, ever more of them: few are mostly enough, and sorting all takes milliseconds."""
    size = 256
    while size < len(distance):
        near = np.flatnonzero(distance <= np.partition(distance, size)[size])
        yield near[np.argsort(distance[near], kind="stable")]
        size *= 8
    yield np.argsort(distance, kind="stable")


def _heaviest(weights: NDArray[np.float32], least: np.float32, count: int) -> Ids:
    """The `count` heaviest in ascending order, the lightest of which weighs `least`; among equals the lower ids."""
    above = np.flatnonzero(weights > least)
    ties = np.flatnonzero(weights == least)[: count - len(above)]
    return np.sort(np.concatenate([above, ties]))


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
    tops = _top_k(logits, min(width, len(logits))) if width else np.empty(0, np.intp)
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
