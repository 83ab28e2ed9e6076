"""The policy `least-loaded`."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.pool.policies.round_robin import RoundRobin


class LeastLoaded(Policy):
    """Chooses the candidate with the smallest share of its slots in use; equally loaded ones take turns."""

    def __init__(self) -> None:
        self._round_robin = RoundRobin()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        min_load = min(remote.load for remote in candidates)
        return self._round_robin.choose([remote for remote in candidates if remote.load == min_load], hint)
