"""Interface of protocols, each of which connects a client to one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink
from subnet.authorizers import AuthorizerBase
from subnet.chat import ChatDelta, ChatRequest, ChatUsage, EmbeddingsRequest, EmbeddingsResponse
from subnet.errors import InvalidRequest, Unauthorized
from subnet.generation import Delta, TokenLogprobs
from subnet.node_info import DEFAULT_PLACEMENT, NodeInfo, Placement
from subnet.tensors import TokenIds
from subnet.wire.messages import Generate


class Timeouts(msgspec.Struct, frozen=True):
    """Timeouts of one node, in seconds; None: the session's timeout of the same name."""

    first_token: float | None = None
    inter_token: float | None = None
    attempt: float | None = None


NO_TIMEOUTS = Timeouts()


class Protocol(ABC):
    """Client's connection to one node. `peer` is the node's address, unique in a pool."""

    peer: str
    timeouts: Timeouts = NO_TIMEOUTS

    @property
    def last_received(self) -> float:
        """Time at which anything last arrived from the node, by time.monotonic; 0 if unknown."""
        return 0.0

    def placement(self, model: str) -> Placement:
        """Return the place that the operator gave to `model` on this node."""
        return DEFAULT_PLACEMENT

    @abstractmethod
    async def rpc_info(self) -> NodeInfo:
        """Return the node's current state: models, capabilities, load. Raises NodeError."""

    @abstractmethod
    async def rpc_artefact(self, sha256: str) -> bytes:
        """Return the tokenizer artefact with this digest, after checking it. Raises NodeError."""

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        """Return a normalised embedding of each text: float32, shape (len(inputs), dimensions).

        Only for nodes with the capability `embeddings`. `model` must be the node's model; None: whichever it serves.
        There is no timeout; cancelling the call cancels the work on the node. Raises NodeError or RequestError.
        """
        raise InvalidRequest("This model does not support embeddings.", param="model")

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        """Return the logprob of every token except the first, and the `width` most likely alternatives of each.

        Only for nodes with the capability `prompt_logprobs`; otherwise the same as `rpc_embed`.
        """
        raise InvalidRequest("This model does not support prompt logprobs.", param="logprobs")

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        """Return the token ids of plain texts, by the tokenizer whose artefact has this digest, on the node.

        Only for artefacts that are tokenized `on_node`. Raises NodeError or RequestError.
        """
        raise InvalidRequest("This model's node does not tokenize.", param="model")

    @abstractmethod
    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        """Generate tokens. Closing the iterator cancels the work on the node.

        The iterator ends once every choice has its finish_reason.

        Raises NodeError (another node may succeed) or RequestError (every node would fail), at any point.
        """

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        """Generate tokens, and call `emit` with each delta as it arrives, without switching tasks.

        Cancelling the call cancels the work on the node, and so does an error of `emit`, which is raised here.

        With an `authorizer`, nothing is emitted before the node has authenticated itself; raises Unauthorized if it
        does not.
        """
        if authorizer is not None:
            raise Unauthorized(f"{self.peer} did not authenticate itself")
        async with aclosing(self.rpc_inference_stream(request)) as stream:
            async for delta in stream:
                emit(delta)

    async def rpc_chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        """Answer a conversation or continue a prompt, and call `emit` with each delta as it arrives.

        Only for models of the chat lane. Returns the usage, or None if the node does not report it, once every choice
        has its finish_reason. Cancelling the call cancels the work on the node. Raises NodeError or RequestError, at
        any point; EndpointMissing if the server has no text completions.
        """
        raise InvalidRequest("This model accepts token ids only, not chat messages.", param="model")

    async def rpc_embeddings(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Return the server's own response with the embeddings of the inputs, after checking it.

        Only for models of the chat lane. There is no timeout; cancelling the call cancels the work on the node. Raises
        NodeError or RequestError; EndpointMissing if the server has no embeddings.
        """
        raise InvalidRequest("This model does not support embeddings.", param="model")

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection, and fail the calls that still use it. Safe to call twice."""
