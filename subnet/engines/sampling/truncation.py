"""Which tokens a draw is among: top_k, typical_p, top_p and min_p, in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from subnet.generation import Sampling

Ids = NDArray[np.intp]


def truncate(weights: NDArray[np.float32], sampling: Sampling) -> Ids | None:
    """Ids, in ascending order, that top_k, typical_p, top_p and min_p leave; None for all. `weights` are
    probabilities times some factor, the largest of them 1."""
    ids: Ids | None = None
    if 0 < sampling.top_k < len(weights):
        ids = top_k(weights, sampling.top_k)
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


def top_k(weights: NDArray[np.float32], k: int) -> Ids:
    """The k heaviest, in ascending order of ids; among equals the lower ids."""
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
