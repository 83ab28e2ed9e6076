"""Scripted node of the chat lane in this process, for tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from subnet.aio import Sink
from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.errors import InvalidRequest, NodeError
from subnet.generation import Delta
from subnet.node_info import Capabilities, Modality, ModelCard, NodeInfo
from subnet.protocols.base import Protocol
from subnet.protocols.mock import Pause, Pauses
from subnet.wire.messages import Generate

ChatStep = str | ChatDelta | Pause | Exception
ChatScript = Sequence[ChatStep] | Callable[[ChatRequest], Sequence[ChatStep]]


class MockChatProtocol(Protocol):
    """A node of the chat lane that plays `script` for every request.

    A step is a text, which every choice gets, a ChatDelta for its own choice, a Pause, or an exception. Choices without
    a finish reason at the end of the script get "stop". If `script` is callable, it returns the script for a request,
    whose `prefix` is the text to continue.

    `requests` are the requests received, `open` counts running requests, and `cancelled` those closed before their end.
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

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        raise InvalidRequest("This model accepts chat messages only, not token ids.", param="model")

    async def rpc_chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        self.requests.append(request)
        self.open += 1
        ended = False
        unfinished = set(request.choices)
        try:
            for step in self.script(request) if callable(self.script) else self.script:
                if isinstance(step, Exception):
                    ended = True
                    raise step
                if isinstance(step, Pause):
                    await self._pauses.wait(step)
                    continue
                for delta in _deltas(step, sorted(unfinished)):
                    if delta.finish_reason is not None:
                        unfinished.discard(delta.choice)
                    ended = not unfinished
                    emit(delta)
            for choice in sorted(unfinished):
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
