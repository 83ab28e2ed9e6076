"""The one with most room."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.node import Remote
from subnet.pool.policies.base import Policy, Want
from subnet.pool.policies.round_robin import RoundRobin


class LeastLoaded(Policy):
    """Takes the candidate with the smallest share of its slots taken; several with the same, in turn."""

    def __init__(self) -> None:
        self._turn = RoundRobin()

    def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
        least = min(remote.load for remote in candidates)
        return self._turn.choose([remote for remote in candidates if remote.load == least], want)
