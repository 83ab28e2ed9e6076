"""Interface of a routing policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from subnet.pool.node import RemoteNode
from subnet.wire.tensors import TokenIds, token_ids


class RoutingHint(msgspec.Struct, frozen=True, eq=False):
    """Properties of a request that are known before a node is chosen.

    `prompt` are its token ids (one-dimensional). `key` is the client's routing key: requests with the same key belong
    together and should go to the same node.
    """

    prompt: TokenIds = msgspec.field(default_factory=lambda: token_ids([]))
    key: str | None = None


class Policy(ABC):
    """Strategy that chooses one of the available nodes. Synchronous, without I/O."""

    @abstractmethod
    def choose(self, candidates: Sequence[RemoteNode], hint: RoutingHint) -> RemoteNode:
        """Return one of `candidates`, which is not empty and in the order of the node table."""
