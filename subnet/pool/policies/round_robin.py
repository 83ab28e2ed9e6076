"""The policy `round-robin`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from subnet.pool.policies.base import C, Candidate, Policy, RoutingHint


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
        self._turns: WeakKeyDictionary[object, _Turn] = WeakKeyDictionary()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        chosen = min(candidates, key=self._key)
        self._counter += 1
        self._now = self._key(chosen)[0]
        self._turns[chosen] = _Turn(self._now + 1 / chosen.weight, self._counter)
        return chosen

    def _key(self, candidate: Candidate) -> tuple[float, int]:
        turn = self._turns.get(candidate, _NO_TURN)
        return max(turn.time, self._now), turn.number


class _Turn(NamedTuple):
    """Virtual time of a candidate's next turn, and the number of its last one."""

    time: float
    number: int


_NO_TURN = _Turn(0.0, 0)
