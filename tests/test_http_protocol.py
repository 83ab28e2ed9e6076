"""What clients of other manners than most may expect of the server."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import pytest
import uvloop

from adapter.server.protocol import HttpProtocol
from subnet.generation import Delta
from subnet.protocols.mock import MockProtocol, Pause
from subnet.wire.messages import Accepted, Generate
from tests.fakes import ASK, events_of, gateway, saying
from tests.test_disconnect import PATIENT, Watched, Wordy, gone

WISH = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


def request(version: str = "1.1", headers: str = "", **fields: Any) -> bytes:
    body = json.dumps({**ASK, **fields}).encode()
    line = f"POST /v1/chat/completions HTTP/{version}\r\n"
    return f"{line}host: x\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def test_a_stream_for_http_1_0() -> None:
    """Who knows nothing of chunks gets none: the answer ends with the connection."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        writer.write(request("1.0", stream=True))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert events_of(body)[-1] == "[DONE]"


@pytest.mark.parametrize("cut", [1, 60, 200, -1])
async def test_a_wish_for_another_protocol(cut: int) -> None:
    """Java's client asks for HTTP/2 with its first request: that is answered as it is, its body too, and so is the next
    one on the connection, wherever the packets end."""
    said = request(headers=WISH) + request(headers=WISH, stream=True)
    async with gateway(saying("Hello")) as url:
        reader, writer = await connect(url)
        writer.write(said[:cut])
        await asyncio.sleep(0)
        writer.write(said[cut:])
        first, rest = await reader.readuntil(b'"content":"Hello"'), await reader.readuntil(b"[DONE]")
        writer.close()
    assert first.startswith(b"HTTP/1.1 200")
    assert rest.count(b"HTTP/1.1 200") == 1


async def test_no_proxy() -> None:
    """CONNECT is refused."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        writer.write(b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_a_client_that_leaves_with_requests_in_line(caplog: pytest.LogCaptureFixture) -> None:
    """The one that is under way ends, the other one never begins, and nothing is wrong with that."""
    node = Watched([65, Pause()])
    with caplog.at_level(logging.ERROR):
        async with gateway(node, limits=PATIENT) as url:
            before = asyncio.all_tasks()
            _, writer = await connect(url)
            writer.write(request() + request())
            await node.began.wait()
            writer.close()
            async with asyncio.timeout(5):
                await node.closed.wait()
                while left := {task for task in asyncio.all_tasks() - before if "run_asgi" in repr(task)}:
                    await asyncio.wait(left)
    assert len(node.requests) == 1
    assert not caplog.records


class Brief(HttpProtocol):
    """Keeps no connection alive for long."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.timeout_keep_alive = 0.05  # type: ignore[assignment]
        super().connection_made(transport)


@pytest.mark.parametrize("begun", [b"", b"POST /v1/chat", request()[:-5].partition(b"content-length")[0]])
async def test_a_request_that_never_comes(begun: bytes) -> None:
    """A connection does not stay open for who says nothing, or only a part of a head."""
    async with gateway(saying("Hi"), http=Brief) as url:
        reader, writer = await connect(url)
        writer.write(begun)
        # What comes after the end is answered with a reset.
        with suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        writer.close()


class Hearing:
    """What connections of `protocol` were sent, which would be kept for an hour."""

    def __init__(self) -> None:
        self.protocol: type[HttpProtocol] = self._made()
        self._said = b""
        self._more = asyncio.Event()

    async def hear(self, end: bytes) -> None:
        """Until that is the last of it."""
        while not self._said.endswith(end):
            self._more.clear()
            await self._more.wait()

    def _made(hearing) -> type[HttpProtocol]:  # noqa: N805
        class Heard(HttpProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                self.timeout_keep_alive = 3600
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                hearing._said += data
                hearing._more.set()

        return Heard


class Waiting(MockProtocol):
    """Says A, and B when it may."""

    def __init__(self, may: asyncio.Semaphore) -> None:
        super().__init__()
        self._may = may

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        yield Delta(0, [65])
        await self._may.acquire()
        yield Delta(0, [66], finish_reason="stop")


JUNK = b"\x00\x00\r\n\r\n"
BROKEN = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n"
BEGUN = b'"content":"A"'
ENDED = b"data: [DONE]\n\n\r\n0\r\n\r\n"


async def test_junk_behind_a_request() -> None:
    """The answer that is under way is not disturbed, and is the last one."""
    may, hearing = asyncio.Semaphore(0), Hearing()
    async with gateway(Waiting(may), limits=PATIENT, http=hearing.protocol) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(request(stream=True))
        said = await reader.readuntil(BEGUN)
        writer.write(JUNK + request())
        await hearing.hear(request())
        may.release()
        said += await reader.read()
        writer.close()
    assert said.count(b"HTTP/1.1") == 1
    assert said.endswith(ENDED)


async def test_junk_behind_a_request_that_has_no_answer_yet() -> None:
    """It is told that the connection ends."""
    async with gateway(saying("Hi"), http=Hearing().protocol) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(request() + JUNK)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize("between", [b"", request(stream=True)])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_broken_request_behind_another(at_once: bool, between: bytes) -> None:
    """Those before it are answered, then the connection ends: it has no answer of its own, nor has what follows it."""
    may, hearing = asyncio.Semaphore(0), Hearing()
    async with gateway(Waiting(may), limits=PATIENT, http=hearing.protocol) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(request(stream=True) + (between + BROKEN if at_once else b""))
        said = await reader.readuntil(BEGUN)
        if not at_once:
            writer.write(between + BROKEN)
        await hearing.hear(BROKEN)
        may.release()
        if between:
            said += await reader.readuntil(ENDED) + await reader.readuntil(BEGUN)
            writer.write(JUNK)
            await hearing.hear(JUNK)
            may.release()
        said += await reader.read()
        writer.close()
    answers = 2 if between else 1
    assert said.count(b"HTTP/1.1") == said.count(b"HTTP/1.1 200") == said.count(ENDED) == answers
    assert said.endswith(ENDED)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_says_that_nothing_more_will_be_asked(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """And has not read all yet, gets what was on its way, and no part without those before it."""
    node = Wordy()

    async def main() -> bytes:
        async with gateway(node, limits=PATIENT) as url, asyncio.timeout(20):
            before = asyncio.all_tasks()
            reader, writer = await connect(url)
            writer.write(request(stream=True))
            said = await reader.readuntil(b"xxxx")
            writer.write_eof()
            said += await reader.read()
            writer.close()
            await gone(node, before)
        return said

    with asyncio.Runner(loop_factory=loop) as runner:
        said = runner.run(main())
    assert b"xxxx" in said
    assert BEGUN not in said or said.count(b"x" * 2**20) == 64


async def test_junk_in_a_request() -> None:
    """Who sends no HTTP in the middle of a body is told."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\n{}\r\n")
        await asyncio.sleep(0)
        writer.write(b"not a size\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_connections_that_were_reset_are_forgotten() -> None:
    """At once, not when they would have been closed."""
    protocols = WeakSet[HttpProtocol]()

    class Known(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            protocols.add(self)
            super().connection_made(transport)

    async with gateway(saying("Hi"), http=Known) as url:
        reader, writer = await connect(url)
        writer.write(request())
        await reader.readuntil(b"}}")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        async with asyncio.timeout(5):
            while protocols:
                gc.collect()
                await asyncio.sleep(0.01)


class Impatient(HttpProtocol):
    patience = 0.4


async def test_a_slow_client() -> None:
    """Who goes on reading gets all, however long it takes in all."""
    large, size = Wordy(), 0
    async with gateway(large, limits=PATIENT, http=Impatient) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as end:
            end.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(end, (host, int(port)))
            await loop.sock_sendall(end, request(stream=True))
            while size < 2**26 and (data := await loop.sock_recv(end, 2**20)):
                size += len(data)
                await asyncio.sleep(0.01)
    assert size >= 2**26
