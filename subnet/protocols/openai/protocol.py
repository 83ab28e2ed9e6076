"""Any OpenAI-compatible server as a node: messages in, text out."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator

from subnet.chat import ChatRequest, ChatUsage, EmitChat
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeBusy, NodeError, NodeLost, RequestError
from subnet.generation import Delta
from subnet.http.client import Http
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Capabilities, NodeInfo
from subnet.protocols.base import Protocol, Timeouts
from subnet.protocols.openai.asking import Asking
from subnet.protocols.openai.models import Models
from subnet.protocols.openai.quirks import quirks_of
from subnet.version import VERSION
from subnet.wire.messages import Accepted, Generate

# How servers refuse a last message of the assistant: Anthropic, Mistral, llama-server, chat templates.
_BEGUN = re.compile(r"prefill|prefix|last (role|message)|must end with|assistant", re.IGNORECASE)


class OpenAIProtocol(Protocol):
    """The server that `spec` names, of the kind that it says; without one, what they all have in common is relied on.

    rpc_chat takes the parameters of a request as they are, save those that the server would drop without a word: they
    are refused by name. Errors of the server come as subnet.upstream.refusals has them. Raises SettingsError for a spec
    that cannot be used.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self.peer = spec.peer
        self.timeouts = Timeouts(spec.first_token_timeout, spec.inter_token_timeout, spec.attempt_timeout)
        self._spec = spec
        self._quirks = quirks_of(spec)
        self._http = Http(spec)
        self._models = Models(spec, self._http)
        self._asking = Asking(self._models, self._http, self._quirks)
        self._id = f"chat-{secrets.token_hex(4)}"
        self._prefill = self._quirks.prefill
        self._running = 0

    @property
    def heard(self) -> float:
        return self._asking.heard

    async def rpc_info(self) -> NodeInfo:
        return NodeInfo(
            node_id=self._id,
            version=VERSION,
            engine=self._spec.kind or "openai",
            cards=await self._models.cards(),
            capabilities=Capabilities(prefill=self._prefill),
            capacity=self._spec.concurrency,
            running=self._running,
        )

    async def rpc_artefact(self, sha256: str) -> bytes:
        raise NodeError(f"{self.peer} does not provide a tokenizer")

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        raise InvalidRequest("This model accepts chat messages only, not token ids.", param="model")

    async def rpc_chat(self, request: ChatRequest, emit: EmitChat) -> ChatUsage | None:
        wanted = len(request.choices)
        if self._running + wanted > self._spec.concurrency:
            raise NodeBusy(
                f"{self._running} of {self._spec.concurrency} slots of {self.peer} are in use, and the request needs "
                f"{wanted}",
                retry_after=0.2,
            )
        self._running += wanted
        try:
            return await self._asking.answer(request, emit)
        except NodeLost:
            # Whether it is still there is to be seen when it is next asked how it is.
            self._models.forget()
            raise
        except (InvalidRequest, ContextLengthExceeded) as error:
            if request.begun:
                raise self._no_prefill(error) from error
            raise
        finally:
            self._running -= wanted

    def _no_prefill(self, error: RequestError) -> NodeError:
        """A request that was right until it was to be gone on with is no mistake of the client's."""
        if _BEGUN.search(error.message):
            self._prefill = False
        return NodeError(f"{self.peer} cannot continue a partial answer: {error.message}")

    async def aclose(self) -> None:
        await self._http.aclose()
