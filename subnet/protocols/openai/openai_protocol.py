"""OpenAI-compatible server as a node: messages in, text out."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator

from subnet.aio import Sink
from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeBusy, NodeError, NodeLost, RequestError
from subnet.generation import Delta
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from subnet.http.queue_watch import QueueWatcher
from subnet.node_info import Capabilities, NodeInfo, Placement
from subnet.protocols.base import Protocol, Timeouts
from subnet.protocols.openai.chat_client import ChatClient
from subnet.protocols.openai.model_catalog import ModelCatalog
from subnet.protocols.openai.quirks import quirks_for
from subnet.version import VERSION
from subnet.wire.messages import Accepted, Generate

# Errors of servers that reject a trailing assistant message: Anthropic, Mistral, llama-server, chat templates.
_PREFILL_ERROR = re.compile(r"prefill|prefix|last (role|message)|must end with|assistant", re.IGNORECASE)


class OpenAIProtocol(Protocol):
    """Server at `spec.url`; without `spec.kind` only what all OpenAI-compatible servers have in common is used.

    rpc_chat passes the parameters of a request on as they are, and rejects those that the server would silently ignore.
    Errors of the server are mapped by subnet.http.error_map. `running` counts the choices in progress. Raises
    SettingsError for an unusable `spec`.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self.peer = spec.peer
        self.timeouts = Timeouts(spec.first_token_timeout, spec.inter_token_timeout, spec.attempt_timeout)
        self._spec = spec
        self._quirks = quirks_for(spec)
        self._http = HttpClient(spec)
        self._models = ModelCatalog(spec, self._http)
        self._client = ChatClient(self._models, self._http, self._quirks, QueueWatcher(spec, self._http, self))
        self._id = f"chat-{secrets.token_hex(4)}"
        self._prefill = self._quirks.prefill
        self.running = 0

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

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        raise InvalidRequest("This model accepts chat messages only, not token ids.", param="model")

    async def rpc_chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        needed, limit = len(request.choices), self._spec.concurrency
        if limit is not None and self.running + needed > limit:
            raise NodeBusy(
                f"{self.running} of {limit} slots of {self.peer} are in use, and the request needs {needed}",
                retry_after=0.2,
            )
        self.running += needed
        try:
            return await self._client.complete(request, emit)
        except NodeLost:
            # The next health check must contact the server, not the cache.
            self._models.invalidate()
            raise
        except (InvalidRequest, ContextLengthExceeded) as error:
            if request.prefix:
                raise self._prefill_rejected(error) from error
            raise
        finally:
            self.running -= needed

    def _prefill_rejected(self, error: RequestError) -> NodeError:
        # The client did not send the prefix, so the error is not the client's, and another node may succeed.
        if _PREFILL_ERROR.search(error.message):
            self._prefill = False
        return NodeError(f"{self.peer} cannot continue a partial answer: {error.message}")

    async def aclose(self) -> None:
        await self._http.aclose()
