"""Gateways that open too many calls or do not read the replies do not fill a node's memory or keep others waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp.client import ClientWebSocketResponse

from subnet.engines.base import Engine
from subnet.engines.echo import EchoEngine
from subnet.errors import NodeBusy, WireError
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
    """Calls beyond what a gateway may have open are refused as busy, and the others are answered; then there is room
    for others.
    """
    engine = SlowTokenizer()
    request = TokenizeRequest(call=0, sha256=engine.card.tokenizer, texts=("x" * (4 << 20),))
    room, refused = (256 << 20) // (len(frames.encode(request)) + (16 << 10)), 30
    async with raw(engine) as (_, socket), asyncio.timeout(60):
        for call in range(room + refused):
            await socket.send_bytes(frames.encode(msgspec.structs.replace(request, call=call)))
        for call in range(room, room + refused):
            failure = Failed(call, NodeBusy.code, "too many calls are open", retry_after=0.2)
            assert frames.decode(await socket.receive_bytes()) == failure
        engine.go_on.set()
        for _ in range(room):
            assert isinstance(frames.decode(await socket.receive_bytes()), TokenizeReply)
        await socket.send_bytes(frames.encode(request))
        assert isinstance(frames.decode(await socket.receive_bytes()), TokenizeReply)


async def test_a_call_that_is_open_twice() -> None:
    """A second call with the number of an open one closes the connection: their replies could not be told apart."""
    engine = SlowTokenizer()
    request = frames.encode(TokenizeRequest(call=7, sha256=engine.card.tokenizer, texts=("x",)))
    async with raw(engine) as (_, socket), asyncio.timeout(20):
        for _ in range(2):
            await socket.send_bytes(request)
        assert (await socket.receive()).extra == "call 7 is already open"


async def test_an_artefact_that_is_not_the_promised_one() -> None:
    """A gateway refuses an artefact whose digest is not the one that it asked for."""
    engine = SlowTokenizer()
    async with raw(engine) as (address, _):
        gateway = WebSocketProtocol(address)
        with pytest.raises(WireError, match="does not match its digest"):
            await gateway.rpc_artefact(engine.card.tokenizer)
        await gateway.aclose()
