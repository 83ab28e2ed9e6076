"""The contract of a routing policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from subnet.client.remote import Remote


class Policy(ABC):
    """Chooses one of the nodes that could take a request. Plain and synchronous: no I/O."""

    @abstractmethod
    def choose(self, candidates: Sequence[Remote]) -> Remote:
        """One of `candidates`, which is not empty and in the order of the node table."""
