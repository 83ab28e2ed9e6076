"""Requests to a server as a node of the chat lane, and their results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.http.node_spec import NodeSpec
from subnet.protocols.openai import OpenAIProtocol
from tests.provider import Provider, Script

HELLO = [{"role": "user", "content": "Hello"}]


class Recorder:
    """Recorder of the deltas of one request; `emit` is the sink for rpc_chat."""

    def __init__(self, then: Callable[[ChatDelta], None] = lambda delta: None) -> None:
        self.deltas: list[ChatDelta] = []
        self.usage: ChatUsage | None = None
        self._then = then

    def emit(self, delta: ChatDelta) -> None:
        self.deltas.append(delta)
        self._then(delta)

    def of(self, choice: int = 0) -> list[ChatDelta]:
        return [delta for delta in self.deltas if delta.choice == choice]

    def text(self, choice: int = 0) -> str:
        return "".join(delta.text for delta in self.of(choice))

    def reasoning(self, choice: int = 0) -> str:
        return "".join(delta.reasoning for delta in self.of(choice))

    def refusal(self, choice: int = 0) -> str:
        return "".join(delta.refusal for delta in self.of(choice))

    def logprobs(self, choice: int = 0) -> list[dict[str, Any]]:
        return [entry for delta in self.of(choice) for entry in delta.logprobs or ()]

    def finishes(self, choice: int = 0) -> list[str]:
        """Return every finish_reason; a correct response has one."""
        return [delta.finish_reason for delta in self.of(choice) if delta.finish_reason is not None]

    def calls(self, choice: int = 0) -> list[tuple[str, str]]:
        """Return names and arguments. Fails if parts are out of order, or name or identify a call twice."""
        calls: list[list[str]] = []
        ids: list[str] = []
        for piece in (call for delta in self.of(choice) for call in delta.calls):
            if piece.index == len(calls):
                assert piece.id
                assert piece.name
                calls.append([piece.name, ""])
                ids.append(piece.id)
            else:
                assert 0 <= piece.index < len(calls)
                assert not piece.id
                assert not piece.name
            calls[piece.index][1] += piece.arguments
        assert len(set(ids)) == len(ids)
        return [(name, arguments) for name, arguments in calls]


@asynccontextmanager
async def node(url: str, **spec: Any) -> AsyncIterator[OpenAIProtocol]:
    protocol = OpenAIProtocol(NodeSpec(url=url, **spec))
    try:
        yield protocol
    finally:
        await protocol.aclose()


async def chat(
    protocol: OpenAIProtocol, *, choices: tuple[int, ...] = (0,), prefix: str = "", model: str = "model", **body: Any
) -> Recorder:
    result = Recorder()
    request = ChatRequest(model=model, body={"messages": HELLO, **body}, choices=choices, prefix=prefix)
    result.usage = await protocol.rpc_chat(request, result.emit)
    return result


async def chat_scripted(script: Script, **body: Any) -> Recorder:
    """Return the result of one scripted response."""
    async with Provider(script) as provider, node(provider.url) as protocol:
        return await chat(protocol, **body)
