"""The policy `round-robin`."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from subnet.pool.policies.base import C, Policy, RoutingHint


class RoundRobin(Policy):
    """Chooses candidates in turn, so that each gets a share of the requests in proportion to its weight.

    Each candidate has a virtual time, which a request advances by 1 / weight; the candidate whose time is the earliest
    is chosen, of several the least recently chosen one (stride scheduling,
    https://en.wikipedia.org/wiki/Stride_scheduling). The time of a node that joins, or was unavailable, is that of the
    others: it gets its share, not what it missed.
    """

    uses_weights = True

    def __init__(self) -> None:
        self._counter = 0
        self._now = 0.0
        self._turns: WeakKeyDictionary[object, tuple[float, int]] = WeakKeyDictionary()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        now, turns = self._now, self._turns
        due = [(max(time, now), number) for time, number in [turns.get(one, _NO_TURN) for one in candidates]]
        first = min(due)
        chosen = candidates[due.index(first)]
        self._counter += 1
        self._now = first[0]
        turns[chosen] = (first[0] + 1 / chosen.weight, self._counter)
        return chosen


# Virtual time of the next turn, and number of the last one, of a candidate that was never chosen.
_NO_TURN = (0.0, 0)
