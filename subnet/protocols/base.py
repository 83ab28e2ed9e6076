"""The contract of a protocol: how a client talks to one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from subnet.generation import Delta
from subnet.messages import Accepted, Generate
from subnet.node_info import NodeInfo


class Protocol(ABC):
    """One node, as a client sees it. `peer` is its address, unique in a table of nodes."""

    peer: str

    @abstractmethod
    async def rpc_info(self) -> NodeInfo:
        """What the node says of itself, now. Raises NodeError."""

    @abstractmethod
    async def rpc_artefact(self, sha256: str) -> bytes:
        """The artefact of that name, its digest checked. Raises NodeError."""

    @abstractmethod
    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        """Generate. Closing the iterator cancels the work on the node.

        `request` is signed already, where signing is wanted; a node that signs yields an Accepted first.

        Raises NodeError (another node may do it) or RequestError (no node will), at any point. An iterator
        that ends normally has given every choice its finish_reason.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection and fail what still runs over it. Safe to call twice."""
