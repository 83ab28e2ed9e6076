"""A server asked as a node of the chat lane, and what was heard of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.http.node_spec import NodeSpec
from subnet.protocols.openai import OpenAIProtocol
from tests.provider import Provider, Script

HELLO = [{"role": "user", "content": "Hello"}]


class Heard:
    """The deltas of one request, and what they come to. `emit` is what to give to rpc_chat."""

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
        """Every finish_reason, which must be one, on the last delta."""
        return [delta.finish_reason for delta in self.of(choice) if delta.finish_reason is not None]

    def calls(self, choice: int = 0) -> list[tuple[str, str]]:
        """Names and arguments. Fails for pieces that come out of order, or that name or identify a call twice."""
        found: list[list[str]] = []
        ids: list[str] = []
        for piece in (call for delta in self.of(choice) for call in delta.calls):
            if piece.index == len(found):
                assert piece.id
                assert piece.name
                found.append([piece.name, ""])
                ids.append(piece.id)
            else:
                assert 0 <= piece.index < len(found)
                assert not piece.id
                assert not piece.name
            found[piece.index][1] += piece.arguments
        assert len(set(ids)) == len(ids)
        return [(name, arguments) for name, arguments in found]


@asynccontextmanager
async def node(url: str, **spec: Any) -> AsyncIterator[OpenAIProtocol]:
    protocol = OpenAIProtocol(NodeSpec(url=url, **spec))
    try:
        yield protocol
    finally:
        await protocol.aclose()


async def heard_of(
    protocol: OpenAIProtocol, *, choices: tuple[int, ...] = (0,), prefix: str = "", model: str = "model", **body: Any
) -> Heard:
    heard = Heard()
    request = ChatRequest(model=model, body={"messages": HELLO, **body}, choices=choices, prefix=prefix)
    heard.usage = await protocol.rpc_chat(request, heard.emit)
    return heard


async def heard_from(script: Script, **body: Any) -> Heard:
    """What becomes of one scripted answer."""
    async with Provider(script) as provider, node(provider.url) as protocol:
        return await heard_of(protocol, **body)
