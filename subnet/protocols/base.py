"""The contract of a protocol: how a client talks to one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec
import numpy as np
from numpy.typing import NDArray

from subnet.chat import ChatDeltaSink, ChatRequest, ChatUsage
from subnet.errors import InvalidRequest, Unauthorized
from subnet.generation import Delta, DeltaSink, TokenLogprobs
from subnet.node_info import NodeInfo
from subnet.wire.messages import Accepted, Generate
from subnet.wire.tensors import TokenIds

Check = Callable[[Accepted], Awaitable[None]]


class Timeouts(msgspec.Struct, frozen=True):
    """What was set for one node alone, in seconds: until the first token, between two, for a request in all."""

    first_token: float | None = None
    inter_token: float | None = None
    attempt: float | None = None


NO_TIMEOUTS = Timeouts()


class Protocol(ABC):
    """One node, as a client sees it. `peer` is its address, unique in a table of nodes; `heard` is when anything last
    came from it, by time.monotonic, 0 where that is not known."""

    peer: str
    timeouts: Timeouts = NO_TIMEOUTS

    @property
    def last_received(self) -> float:
        return 0.0

    @abstractmethod
    async def rpc_info(self) -> NodeInfo:
        """What the node says of itself, now. Raises NodeError."""

    @abstractmethod
    async def rpc_artefact(self, sha256: str) -> bytes:
        """The artefact of that name, its digest checked. Raises NodeError."""

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        """An embedding of length 1 for each text: float32, shape (len(inputs), dimensions). Cancelling the call ends
        the work on the node; it takes as long as it takes.

        Only for nodes whose capabilities say `embeddings`. `model`: refuse any other. Raises NodeError or RequestError.
        """
        raise InvalidRequest("This model does not support embeddings.", param="model")

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        """How likely each token but the first is after those before it, with the `width` likeliest in its place.

        Only for nodes whose capabilities say `prompt_logprobs`; else as `rpc_embed`.
        """
        raise InvalidRequest("This model does not support prompt logprobs.", param="logprobs")

    @abstractmethod
    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        """Generate. Closing the iterator cancels the work on the node.

        `request` is signed already, where signing is wanted; a node that signs yields an Accepted first.

        Raises NodeError (another node may do it) or RequestError (no node will), at any point. An iterator
        that ends normally has given every choice its finish_reason.
        """

    async def rpc_inference(self, request: Generate, emit: DeltaSink, check: Check | None = None) -> None:
        """The same pushed: `emit` gets each delta as it comes, with no task switched for it. Cancelling the call
        cancels the work on the node, and so does an error of `emit`, which is raised here.

        With a `check` nothing is emitted before it has passed the node's Accepted; raises Unauthorized for a node that
        sends a delta without one.
        """
        async with aclosing(self.rpc_inference_stream(request)) as stream:
            async for received in stream:
                if isinstance(received, Delta):
                    if check is not None:
                        raise Unauthorized(f"{self.peer} did not authenticate itself")
                    emit(received)
                elif check is not None:
                    await check(received)
                    check = None

    async def rpc_chat(self, request: ChatRequest, emit: ChatDeltaSink) -> ChatUsage | None:
        """Answer a conversation: `emit` gets each delta as it comes. Cancelling the call ends the work on the node.

        Only for models whose card says the chat lane. Returns, once every choice has its finish_reason, what was used,
        where the node tells. Raises NodeError or RequestError, at any point.
        """
        raise InvalidRequest("This model accepts token ids only, not chat messages.", param="model")

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection and fail what still runs over it. Safe to call twice."""
