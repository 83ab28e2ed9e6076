"""A server of the chat lane in this process that does what a script says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from subnet.chat import ChatDelta, ChatDeltaSink, ChatRequest, ChatUsage
from subnet.errors import InvalidRequest, NodeError
from subnet.generation import Delta
from subnet.node_info import Capabilities, Modality, ModelCard, NodeInfo
from subnet.protocols.base import Protocol
from subnet.protocols.mock import Pause, Pauses
from subnet.wire.messages import Accepted, Generate

ChatStep = str | ChatDelta | Pause | Exception
ChatScript = Sequence[ChatStep] | Callable[[ChatRequest], Sequence[ChatStep]]


class MockChatProtocol(Protocol):
    """Plays `script` for every request: a text is a delta of every choice, a ChatDelta one of its own choice, a Pause
    waits, an exception is raised. Every choice that has no finish reason at the end gets "stop". A callable makes the
    script from the request: by `request.begun` it knows what to go on with.

    `requests` keeps what was asked, `open` counts those under way, `cancelled` those closed before their end.
    """

    def __init__(
        self,
        script: ChatScript = (),
        *,
        peer: str = "chat",
        models: Sequence[str] = ("mock",),
        usage: ChatUsage | None = None,
        prefill: bool = False,
        capacity: int = 64,
        context_length: int = 0,
        modalities: tuple[Modality, ...] = (),
    ) -> None:
        self.peer = peer
        self.script = script
        self.requests: list[ChatRequest] = []
        self.open = 0
        self.cancelled = 0
        self._usage = usage
        self._capacity = capacity
        self._capabilities = Capabilities(prefill=prefill)
        self._pauses = Pauses(peer)
        self._cards = tuple(
            ModelCard(id=name, context_length=context_length, tokenizer="", lane="chat", modalities=modalities)
            for name in models
        )

    async def rpc_info(self) -> NodeInfo:
        return NodeInfo(
            node_id=self.peer,
            version="0",
            engine="mock",
            cards=self._cards,
            capabilities=self._capabilities,
            capacity=self._capacity,
            running=self.open,
        )

    async def rpc_artefact(self, sha256: str) -> bytes:
        raise NodeError(f"{self.peer} has no tokenizer")

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        raise InvalidRequest("This model accepts chat messages only, not token ids.", param="model")

    async def rpc_chat(self, request: ChatRequest, emit: ChatDeltaSink) -> ChatUsage | None:
        self.requests.append(request)
        self.open += 1
        ended = False
        left = set(request.choices)
        try:
            for step in self.script(request) if callable(self.script) else self.script:
                if isinstance(step, Exception):
                    ended = True
                    raise step
                if isinstance(step, Pause):
                    await self._pauses.wait(step)
                    continue
                for delta in _deltas(step, sorted(left)):
                    if delta.finish_reason is not None:
                        left.discard(delta.choice)
                    ended = not left
                    emit(delta)
            for choice in sorted(left):
                emit(ChatDelta(choice, finish_reason="stop"))
            ended = True
            return self._usage
        finally:
            self.open -= 1
            self.cancelled += not ended

    async def aclose(self) -> None:
        self._pauses.close()


def _deltas(step: str | ChatDelta, choices: Sequence[int]) -> list[ChatDelta]:
    if isinstance(step, str):
        return [ChatDelta(choice, step) for choice in choices]
    return [msgspec.structs.replace(step)] if step.choice in choices else []
