"""The policy `least-loaded`."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.pool.policies.round_robin import RoundRobin


class LeastLoaded(Policy):
    """Chooses the candidate with the smallest share of its slots in use, relative to its weight; equally loaded ones
    take turns.
    """

    uses_weights = True

    def __init__(self) -> None:
        self._round_robin = RoundRobin()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        loads = [remote.load / remote.weight for remote in candidates]
        least = min(loads)
        return self._round_robin.choose([c for c, load in zip(candidates, loads, strict=True) if load == least], hint)
