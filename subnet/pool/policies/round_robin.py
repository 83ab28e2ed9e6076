"""The policy `round-robin`."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from subnet.pool.policies.base import C, Policy, RoutingHint


class RoundRobin(Policy):
    """Chooses the least recently chosen candidate, so nodes that join or leave do not disturb the rotation."""

    def __init__(self) -> None:
        self._counter = 0
        self._last_chosen: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        chosen = min(candidates, key=lambda remote: self._last_chosen.get(remote, 0))
        self._counter += 1
        self._last_chosen[chosen] = self._counter
        return chosen
