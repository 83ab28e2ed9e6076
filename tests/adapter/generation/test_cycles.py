"""Requests leave no reference cycles: their objects are freed without the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import pytest

from adapter.generation.token_lane import TokenGeneration
from adapter.server.response_writer import ResponseWriter
from subnet.chat import ChatDelta
from subnet.client.failover import Failover
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.protocols.mock import Pause
from subnet.protocols.mock_chat import MockChatProtocol
from subnet.protocols.websocket import WebSocketProtocol
from tests import chat_node
from tests.adapter.server.test_disconnect import NO_TIMEOUTS, Watched, client, gone
from tests.fakes import ASK, gateway
from tests.provider import Provider, Script, answer, cut_off, error_response

QUESTION = {"model": "echo", "messages": [{"role": "user", "content": "To be or not"}], "max_tokens": 30}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@contextmanager
def no_cycles(*besides: str) -> Iterator[None]:
    """Fail if the block leaves cyclic garbage of this project's classes, other than those in `besides`."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        garbage = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = {name: count for name, count in garbage.items() if name.startswith(("adapter.", "subnet."))}
    assert not ours.keys() - set(besides), ours


async def post(url: str, fields: dict[str, Any], path: str = "/v1/chat/completions") -> None:
    """Send a request on a new connection and read the whole response."""
    async with client(url, fields=fields, path=path) as (reader, _):
        async with asyncio.timeout(5):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"chunked" in head:
                await read_chunked(reader)
            else:
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))


async def read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while not body.endswith(b"\r\n0\r\n\r\n"):
        body += await reader.read(1000)
    return body


@asynccontextmanager
async def node(rate: float = 0.0) -> AsyncIterator[tuple[str, str]]:
    """Start a node with an echo engine; yields its name and its address."""
    async with EchoEngine(options=EchoOptions(rate=rate)) as engine:
        served = Node(engine)
        async with listening(served, "127.0.0.1", 0) as address:
            yield served.info().node_id, address


async def settled() -> None:
    """Wait until the server has closed its connection, too."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2, "logprobs": True, "top_logprobs": 2},
        {"stop": [" "], "temperature": 0},
        {"tools": [TOOL], "stream_options": {"include_usage": True}},
        {"temperature": 3},
        {"model": "nobody"},
        {"logit_bias": {"100000": 1}},
        {"messages": [{"role": "user", "content": "x" * 200_000}]},
    ],
    ids=["plain", "choices", "stop", "tools", "wrong", "no-model", "no-token", "too-long"],
)
async def test_answers_and_errors(stream: bool, fields: dict[str, Any]) -> None:
    """Answers and errors on the token lane leave no reference cycles."""
    fields = {**QUESTION, "stream": stream, **fields}
    if not stream:
        fields.pop("stream_options", None)
    async with node() as (_, address), gateway(WebSocketProtocol(address)) as url:
        await post(url, fields)
        with no_cycles():
            await post(url, fields)
            await settled()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop_sequences": [" "], "temperature": 0},
        {"tools": [{"name": "add", "input_schema": {"type": "object"}}]},
        {"temperature": 3},
        {"model": "nobody"},
        {"tool_choice": {"type": "any"}},
    ],
    ids=["plain", "stop", "tools", "wrong", "no-model", "no-tools"],
)
async def test_messages(stream: bool, fields: dict[str, Any]) -> None:
    """Messages in Anthropic's dialect, and their errors, leave none on either lane."""
    fields = {**QUESTION, "stream": stream, **fields}
    chat = MockChatProtocol([ChatDelta(0, "Hello"), ChatDelta(0, finish_reason="stop")], models=["echo"])
    async with node() as (_, address):
        for served in (WebSocketProtocol(address), chat):
            async with gateway(served) as url:
                await post(url, fields, "/v1/messages")
                with no_cycles():
                    await post(url, fields, "/v1/messages")
                    await settled()


def request_objects() -> set[Any]:
    """Return the live objects that belong to single requests."""
    return {one for one in gc.get_objects() if isinstance(one, Failover | TokenGeneration | ResponseWriter)}


class Link:
    """TCP proxy from `address` to the node at `target` that can cut all its connections."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self._passing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await asyncio.gather(*self._passing)

    def cut(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.removeprefix("http://").split(":")
        there, back = await asyncio.open_connection(host, int(port))
        self._writers += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            self._passing.append(asyncio.create_task(self._pass(source, sink)))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
        sink.transport.abort()


async def test_a_failover() -> None:
    """A failover in the middle of an answer leaves no reference cycles, and the lost connection keeps no request."""
    fields = {**QUESTION, "stream": True}
    async with node(100) as (name, one), node(100) as (_, two), Link(one) as first, Link(two) as second:
        async with gateway(*[WebSocketProtocol(link.address) for link in (first, second)]) as url:
            await post(url, fields)
            others = request_objects()
            # Objects of the node's side of the connection: one per connection, not per request.
            with no_cycles("subnet.node.node_connection.NodeConnection", "subnet.wire.outbox.Outbox"):
                async with client(url, fields=fields) as (reader, _):
                    head = await reader.readuntil(b"data: ")
                    (first if name.encode() in head else second).cut()
                    rest = await read_chunked(reader)
                await settled()
                leaked = request_objects() - others
    assert b"[DONE]" in rest
    assert b": nodes " in rest
    assert not leaked


@pytest.mark.parametrize("stream", [False, True])
async def test_the_chat_lane(stream: bool) -> None:
    """Answers on the chat lane leave no reference cycles."""
    node = MockChatProtocol([ChatDelta(0, "Hello"), ChatDelta(0, finish_reason="stop")])
    async with gateway(node) as url:
        await post(url, {**ASK, "stream": stream})
        with no_cycles():
            await post(url, {**ASK, "stream": stream})
            await settled()


@pytest.mark.parametrize(
    "script", [answer(), error_response(400, "no"), cut_off(2)], ids=["answer", "refusal", "failure"]
)
async def test_a_server_of_the_chat_lane(script: Script) -> None:
    """Neither do answers and errors of a real server."""
    async with Provider(script) as provider, chat_node.node(provider.url) as node, gateway(node) as url:
        asked = {**ASK, "model": "model", "stream": True}
        await post(url, asked)
        with no_cycles():
            await post(url, asked)
            await settled()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_disconnects(stream: bool) -> None:
    """A client that disconnects in the middle of an answer leaves no reference cycles."""
    node = Watched([65, Pause()])
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        before = asyncio.all_tasks()
        with no_cycles():
            async with client(url, fields={**ASK, "stream": stream}):
                await node.began.wait()
            await gone(node, before)
            await settled()
