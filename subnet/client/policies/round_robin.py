"""Everyone in turn."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.client.policies.base import Policy
from subnet.client.remote import Remote


class RoundRobin(Policy):
    """Takes the candidate that was chosen longest ago, so nodes that come and go do not upset the turn."""

    def __init__(self) -> None:
        self._turn = 0
        self._last: dict[str, int] = {}

    def choose(self, candidates: Sequence[Remote]) -> Remote:
        chosen = min(candidates, key=lambda remote: self._last.get(remote.peer, 0))
        self._turn += 1
        self._last[chosen.peer] = self._turn
        return chosen
