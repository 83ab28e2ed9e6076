"""Everyone in turn."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from subnet.pool.node import Remote
from subnet.pool.policies.base import Policy, Want


class RoundRobin(Policy):
    """Takes the candidate that was chosen longest ago, so nodes that come and go do not upset the turn."""

    def __init__(self) -> None:
        self._turn = 0
        self._last: WeakKeyDictionary[Remote, int] = WeakKeyDictionary()

    def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
        chosen = min(candidates, key=lambda remote: self._last.get(remote, 0))
        self._turn += 1
        self._last[chosen] = self._turn
        return chosen
