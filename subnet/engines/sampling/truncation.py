"""Truncation of the distribution before a draw: top_k, typical_p, top_p and min_p, in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from subnet.generation import Sampling

Ids = NDArray[np.intp]


def truncate(weights: NDArray[np.float32], sampling: Sampling) -> Ids | None:
    """Return the ids that top_k, typical_p, top_p and min_p keep, in ascending order; None for all.

    `weights`, shape (vocab,), are probabilities scaled so that the largest is 1.
    """
    ids: Ids | None = None
    if 0 < sampling.top_k < len(weights):
        ids = top_k(weights, sampling.top_k)
    if sampling.typical_p < 1:
        ids = _filter(weights, ids, lambda subset: _select_typical(subset, sampling.typical_p))
    if sampling.top_p < 1:
        ids = _filter(weights, ids, lambda subset: _select_top_p(subset, sampling.top_p))
    if sampling.min_p > 0:
        ids = _filter(weights, ids, lambda subset: np.flatnonzero(subset >= sampling.min_p))
    return ids


def _filter(weights: NDArray[np.float32], ids: Ids | None, select: Callable[[NDArray[np.float32]], Ids]) -> Ids:
    """Apply `select` to the weights of the tokens in `ids`, or of all tokens if None, and return the ids it keeps."""
    return select(weights) if ids is None else ids[select(weights[ids])]


def top_k(weights: NDArray[np.float32], k: int) -> Ids:
    """Return the ids of the k largest weights, in ascending order. Ties go to the lower ids."""
    return _select_heaviest(weights, np.partition(weights, -k)[-k], k)


def _select_top_p(weights: NDArray[np.float32], top_p: float) -> Ids:
    """Return the smallest set of most likely tokens whose probabilities sum to at least top_p; at least one."""
    total = weights.sum(dtype=np.float64)
    # All tokens below this weight sum to less than 1 - top_p, so none of them is needed.
    candidates = weights[weights >= (1 - top_p) * total / len(weights) * 0.99]
    descending = np.sort(candidates)[::-1]
    reached = np.cumsum(descending, dtype=np.float64) >= top_p * total
    count = int(reached.argmax()) + 1 if reached.any() else len(descending)
    return _select_heaviest(weights, descending[count - 1], count)


def _select_typical(weights: NDArray[np.float32], typical_p: float) -> Ids:
    """Return the smallest set of tokens whose probabilities sum to typical_p.

    Tokens are added in order of the distance between their surprisal and the entropy.
    """
    candidates = np.flatnonzero(weights)
    shares = weights[candidates] / weights.sum(dtype=np.float64)
    surprise = -np.log(shares)
    distance = np.abs(surprise - (shares * surprise).sum())
    for order in _in_order_of_distance(distance):
        reached = np.cumsum(shares[order]) >= typical_p
        if reached.any():
            return np.sort(candidates[order[: int(reached.argmax()) + 1]])
    return candidates


def _in_order_of_distance(distance: NDArray[np.float64]) -> Iterator[Ids]:
    """Yield ever longer lists of ids in order of distance. A short list is mostly enough; sorting all takes ms."""
    size = 256
    while size < len(distance):
        nearest = np.flatnonzero(distance <= np.partition(distance, size)[size])
        yield nearest[np.argsort(distance[nearest], kind="stable")]
        size *= 8
    yield np.argsort(distance, kind="stable")


def _select_heaviest(weights: NDArray[np.float32], threshold: np.float32, count: int) -> Ids:
    """Return the ids of the `count` largest weights, in ascending order. Ties go to the lower ids.

    `threshold` is the smallest of these weights.
    """
    above = np.flatnonzero(weights > threshold)
    ties = np.flatnonzero(weights == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, ties]))
