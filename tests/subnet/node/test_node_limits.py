"""Gateways that open too many calls or do not read the replies do not fill a node's memory or keep others waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.client import ClientWebSocketResponse

from subnet.engines.base import Engine
from subnet.engines.echo import EchoEngine
from subnet.errors import NodeBusy
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.protocols.websocket import WebSocketProtocol
from subnet.tensors import TokenIds, token_ids
from subnet.wire import frames
from subnet.wire.messages import ArtefactReply, ArtefactRequest, Failed, TokenizeReply, TokenizeRequest
from tests.security.beside import PeakMemory

ARTEFACT = bytes(8 << 20)


class SlowTokenizer(EchoEngine):
    """Engine that tokenizes once it is told to, with a large artefact."""

    def __init__(self) -> None:
        super().__init__()
        self.artefact = ARTEFACT
        self.go_on = asyncio.Event()

    async def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        await self.go_on.wait()
        return [token_ids([1]) for _ in texts]


@asynccontextmanager
async def raw(engine: Engine) -> AsyncIterator[tuple[str, ClientWebSocketResponse]]:
    """Serve `engine`, and connect to it without a protocol."""
    async with engine, listening(Node(engine), "127.0.0.1", 0) as address, aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{address}/subnet", max_msg_size=0) as socket:
            yield address, socket


async def test_replies_to_a_gateway_that_does_not_read() -> None:
    """Many requests for a large artefact are answered one at a time, and another gateway is served meanwhile."""
    engine, count = SlowTokenizer(), 60
    memory = PeakMemory(os.getpid())
    async with raw(engine) as (address, socket):
        for call in range(count):
            await socket.send_bytes(frames.encode(ArtefactRequest(call, engine.card.tokenizer)))
        other = WebSocketProtocol(address)
        for _ in range(20):
            assert (await other.rpc_info()).engine == "echo"
        await other.aclose()
        for _ in range(count):
            assert isinstance(frames.decode(await socket.receive_bytes()), ArtefactReply)
    # What both ends, in one process here, hold of a few replies.
    assert memory.growth < 20 * len(ARTEFACT)


async def test_too_many_open_calls() -> None:
    """Calls beyond what a gateway may have open are refused as busy, and the others are answered."""
    engine, count = SlowTokenizer(), 100
    texts = ("x" * (4 << 20),)
    async with raw(engine) as (_, socket):
        for call in range(count):
            await socket.send_bytes(
                frames.encode(TokenizeRequest(call=call, sha256=engine.card.tokenizer, texts=texts))
            )
        refused = frames.decode(await socket.receive_bytes())
        assert isinstance(refused, Failed)
        assert (refused.code, refused.message) == (NodeBusy.code, "too many calls are open")
        engine.go_on.set()
        replies = [frames.decode(await socket.receive_bytes()) for _ in range(count - 1)]
    answered = sum(isinstance(reply, TokenizeReply) for reply in replies)
    assert 50 < answered < 70
    assert answered + sum(isinstance(reply, Failed) for reply in replies) == count - 1
