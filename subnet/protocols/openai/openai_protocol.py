"""OpenAI-compatible server as a node: messages or text in, text or embeddings out."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from subnet.aio import Sink
from subnet.chat import ChatDelta, ChatRequest, ChatUsage, EmbeddingsRequest, EmbeddingsResponse, Endpoint
from subnet.errors import (
    ContextLengthExceeded,
    EndpointMissing,
    InvalidRequest,
    NodeBusy,
    NodeError,
    NodeLost,
    RequestError,
)
from subnet.generation import Delta
from subnet.http.client import HttpClient
from subnet.http.error_map import NotFound
from subnet.http.node_spec import NodeSpec
from subnet.http.queue_watch import QueueWatcher
from subnet.node_info import Capabilities, NodeInfo, Placement
from subnet.protocols.base import Protocol, Timeouts
from subnet.protocols.openai.chat_client import ChatClient
from subnet.protocols.openai.embeddings import post_embeddings
from subnet.protocols.openai.model_catalog import ModelCatalog
from subnet.protocols.openai.quirks import quirks_for
from subnet.version import VERSION
from subnet.wire.messages import Generate

# Errors of servers that reject a trailing assistant message: Anthropic, Mistral, llama-server, chat templates.
_PREFILL_ERROR = re.compile(r"prefill|prefix|last (role|message)|must end with|assistant", re.IGNORECASE)


class OpenAIProtocol(Protocol):
    """Server at `spec.url`; without `spec.kind` only what all OpenAI-compatible servers have in common is used.

    rpc_chat passes the parameters of a request on as they are, and rejects those that the server would silently ignore;
    rpc_embeddings passes on all of them. Errors of the server are mapped by subnet.http.error_map. `running` counts the
    choices in progress. A `version` of "" is unknown. Raises SettingsError for an unusable `spec`.
    """

    def __init__(self, spec: NodeSpec, version: str = "") -> None:
        self.peer = spec.peer
        self.timeouts = Timeouts(spec.first_token_timeout, spec.inter_token_timeout, spec.attempt_timeout)
        self._spec = spec
        self._quirks = quirks_for(spec, version)
        self._http = HttpClient(spec)
        self._models = ModelCatalog(spec, self._http)
        self._client = ChatClient(self._models, self._http, self._quirks, QueueWatcher(spec, self._http, self))
        self._id = f"chat-{secrets.token_hex(4)}"
        self._prefill = self._quirks.prefill
        self.running = 0
        self._working: set[tuple[Endpoint, str]] = set()

    @property
    def last_received(self) -> float:
        return self._client.last_received

    def placement(self, model: str) -> Placement:
        return self._spec.placement(model)

    async def rpc_info(self) -> NodeInfo:
        return NodeInfo(
            node_id=self._id,
            version=VERSION,
            engine=self._spec.kind or "openai",
            cards=await self._models.cards(),
            capabilities=Capabilities(prefill=self._prefill, seeds=self._quirks.seeds, replay=self._spec.replay),
            capacity=self._spec.capacity,
            limited=self._spec.concurrency is not None,
            running=self.running,
        )

    async def rpc_artefact(self, sha256: str) -> bytes:
        raise NodeError(f"{self.peer} does not provide a tokenizer")

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        raise InvalidRequest("This model accepts messages and text only, not token ids.", param="model")

    async def rpc_chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        with self._slots(len(request.choices)), self._may_be_missing(request.endpoint, request.model):
            try:
                return await self._client.complete(request, emit)
            except (InvalidRequest, ContextLengthExceeded) as error:
                if request.prefix:
                    raise self._prefill_rejected(request, error) from error
                raise

    async def rpc_embeddings(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        with self._slots(1), self._may_be_missing("embeddings", request.model):
            model = self._models.upstream_name(request.model, self._quirks.model)
            return await post_embeddings(self._http, request, model)

    @contextmanager
    def _may_be_missing(self, endpoint: Endpoint, model: str) -> Iterator[None]:
        """Take an endpoint that has worked for missing no more: some servers answer like that to a request whose
        parameters they cannot meet.
        """
        try:
            yield
        except EndpointMissing as error:
            if (endpoint, model) in self._working:
                raise NotFound(error.message) from error
            raise
        self._working.add((endpoint, model))

    @contextmanager
    def _slots(self, needed: int) -> Iterator[None]:
        """Use `needed` slots of the server. Raises NodeBusy if it does not have as many left."""
        limit = self._spec.concurrency
        if limit is not None and self.running + needed > limit:
            raise NodeBusy(
                f"{self.running} of {limit} slots of {self.peer} are in use, and the request needs {needed}",
                retry_after=0.2,
            )
        self.running += needed
        try:
            yield
        except NodeLost:
            # The next health check must contact the server, not the cache.
            self._models.invalidate()
            raise
        finally:
            self.running -= needed

    def _prefill_rejected(self, request: ChatRequest, error: RequestError) -> NodeError:
        # The client did not send the prefix, so the error is not the client's, and another node may succeed.
        if request.endpoint == "chat/completions" and _PREFILL_ERROR.search(error.message):
            self._prefill = False
        return NodeError(f"{self.peer} cannot continue a partial answer: {error.message}")

    async def aclose(self) -> None:
        await self._http.aclose()
