"""The contract of a routing policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from subnet.pool.node import Remote
from subnet.wire.tensors import TokenIds, token_ids


class Want(msgspec.Struct, frozen=True, eq=False):
    """What is known of a request before a node is chosen: the prompt's token ids (one-dimensional), and the `key`
    that the client gave to keep requests that belong together on one node.
    """

    prompt: TokenIds = msgspec.field(default_factory=lambda: token_ids([]))
    key: str | None = None


class Policy(ABC):
    """Chooses one of the nodes that could take a request. Plain and synchronous: no I/O."""

    @abstractmethod
    def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
        """One of `candidates`, which is not empty and in the order of the node table."""
