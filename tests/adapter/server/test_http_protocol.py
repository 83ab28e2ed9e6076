"""Clients that use HTTP in unusual ways."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import pytest

from adapter.server.protocol import HttpProtocol
from subnet.generation import Delta
from subnet.protocols.mock import MockProtocol, Pause
from subnet.wire.messages import Generate
from tests.adapter.server.test_disconnect import NO_TIMEOUTS, Watched, Wordy
from tests.fakes import ASK, events_of, gateway, saying

UPGRADE = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


def request(version: str = "1.1", headers: str = "", **fields: Any) -> bytes:
    body = json.dumps({**ASK, **fields}).encode()
    line = f"POST /v1/chat/completions HTTP/{version}\r\n"
    return f"{line}host: localhost\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def test_a_stream_for_http_1_0() -> None:
    """An HTTP/1.0 client gets no chunks: the response ends with the connection."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        writer.write(request("1.0", stream=True))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert events_of(body)[-1] == "[DONE]"


@pytest.mark.parametrize("cut", [1, 60, 200, -1])
async def test_an_upgrade_request(cut: int) -> None:
    """A request to upgrade to HTTP/2, as Java's client sends, is answered in HTTP/1.1, and so is the next request on
    the connection, wherever the packets end."""
    data = request(headers=UPGRADE) + request(headers=UPGRADE, stream=True)
    async with gateway(saying("Hello")) as url:
        reader, writer = await connect(url)
        writer.write(data[:cut])
        await asyncio.sleep(0)
        writer.write(data[cut:])
        first, rest = await reader.readuntil(b'"content":"Hello"'), await reader.readuntil(b"[DONE]")
        writer.close()
    assert first.startswith(b"HTTP/1.1 200")
    assert rest.count(b"HTTP/1.1 200") == 1


async def test_no_proxy() -> None:
    """CONNECT gets status 400."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        writer.write(b"CONNECT example.org:443 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_a_disconnect_with_pipelined_requests(caplog: pytest.LogCaptureFixture) -> None:
    """A disconnect cancels the running request, drops the pipelined one, and logs no error."""
    node = Watched([65, Pause()])
    with caplog.at_level(logging.ERROR):
        async with gateway(node, limits=NO_TIMEOUTS) as url:
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


class ShortIdleTimeout(HttpProtocol):
    """Closes idle connections after 50 ms."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.timeout_keep_alive = 0.05  # type: ignore[assignment]
        super().connection_made(transport)


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat", request()[:-5].partition(b"content-length")[0]])
async def test_a_request_that_never_comes(start: bytes) -> None:
    """A connection without a complete request head is closed after the idle timeout."""
    async with gateway(saying("Hi"), http=ShortIdleTimeout) as url:
        reader, writer = await connect(url)
        writer.write(start)
        # Data sent after the close is answered with a reset.
        with suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        writer.close()


class RecordedInput:
    """Records the input of connections of `protocol`, whose idle timeout is an hour."""

    def __init__(self) -> None:
        self.protocol: type[HttpProtocol] = self._made()
        self._input = b""
        self._more = asyncio.Event()

    async def received(self, end: bytes) -> None:
        """Wait until the input ends with `end`."""
        while not self._input.endswith(end):
            self._more.clear()
            await self._more.wait()

    def _made(recorded) -> type[HttpProtocol]:  # noqa: N805
        class Recorded(HttpProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                self.timeout_keep_alive = 3600
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                recorded._input += data
                recorded._more.set()

        return Recorded


class Waiting(MockProtocol):
    """Sends A, and B after `may` is released."""

    def __init__(self, may: asyncio.Semaphore) -> None:
        super().__init__()
        self._may = may

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        yield Delta(0, [65])
        await self._may.acquire()
        yield Delta(0, [66], finish_reason="stop")


JUNK = b"\x00\x00\r\n\r\n"
BROKEN = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n"
FIRST_TOKEN = b'"content":"A"'
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


async def test_junk_behind_a_request() -> None:
    """Invalid input during a response closes the connection after that response."""
    may, recorded = asyncio.Semaphore(0), RecordedInput()
    async with gateway(Waiting(may), limits=NO_TIMEOUTS, http=recorded.protocol) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(request(stream=True))
        data = await reader.readuntil(FIRST_TOKEN)
        writer.write(JUNK + request())
        await recorded.received(request())
        may.release()
        data += await reader.read()
        writer.close()
    assert data.count(b"HTTP/1.1") == 1
    assert data.endswith(END)


async def test_junk_behind_a_request_that_has_no_answer_yet() -> None:
    """A response that starts after invalid input has the header `connection: close`."""
    async with gateway(saying("Hi"), http=RecordedInput().protocol) as url, asyncio.timeout(10):
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
    """Requests before an invalid one are answered, then the connection is closed without another response."""
    may, recorded = asyncio.Semaphore(0), RecordedInput()
    async with gateway(Waiting(may), limits=NO_TIMEOUTS, http=recorded.protocol) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(request(stream=True) + (between + BROKEN if at_once else b""))
        data = await reader.readuntil(FIRST_TOKEN)
        if not at_once:
            writer.write(between + BROKEN)
        await recorded.received(BROKEN)
        may.release()
        if between:
            data += await reader.readuntil(END) + await reader.readuntil(FIRST_TOKEN)
            writer.write(JUNK)
            await recorded.received(JUNK)
            may.release()
        data += await reader.read()
        writer.close()
    answers = 2 if between else 1
    assert data.count(b"HTTP/1.1") == data.count(b"HTTP/1.1 200") == data.count(END) == answers
    assert data.endswith(END)


async def test_junk_in_a_request() -> None:
    """Invalid input in a request body gets status 400."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\n{}\r\n")
        await asyncio.sleep(0)
        writer.write(b"not a size\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_connections_that_were_reset_are_released() -> None:
    """A connection that was reset is released at once, not after its idle timeout."""
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


class ShortSendTimeout(HttpProtocol):
    send_timeout = 0.4


async def test_a_slow_client() -> None:
    """A slow client that keeps reading gets everything, even if that takes longer than the send timeout."""
    large, size = Wordy(), 0
    async with gateway(large, limits=NO_TIMEOUTS, http=ShortSendTimeout) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as end:
            end.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(end, (host, int(port)))
            await loop.sock_sendall(end, request(stream=True))
            while size < 2**25 and (data := await loop.sock_recv(end, 2**20)):
                size += len(data)
                await asyncio.sleep(0.01)
    assert size >= 2**25


CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n", b"x-filler: %b\r\n" % (b"a" * 4096)),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-filler: ", b"a" * 4096),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-trailer: %b\r\n" % (b"a" * 4096)),
        (CHUNKED + b"2;", b"a" * 4096),
    ],
    ids=["many headers", "one header", "trailers", "chunk extension"],
)
async def test_endless_headers_are_rejected(start: bytes, piece: bytes) -> None:
    """A request head, trailer or chunk extension that does not end gets status 431, and the connection is closed."""
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        writer.write(start)
        sent = 0
        with suppress(ConnectionError):
            while not reader.at_eof() and sent < 16 * 2**20:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)
        answer = b""
        with suppress(ConnectionError):
            answer = await reader.read()
        writer.close()
    assert sent < 16 * 2**20
    if answer:
        assert answer.startswith(b"HTTP/1.1 431")
        assert events_of(b"data: " + answer.partition(b"\r\n\r\n")[2])[0]["error"]["code"] == "headers_too_large"


async def test_large_headers_and_small_pieces_of_a_body() -> None:
    """A head of 60 KiB is accepted, and so is a body of 200 KiB that arrives in pieces of 1 KiB."""
    body = json.dumps({**ASK, "metadata": {"filler": "a" * 200 * 1024}}).encode()
    head = request(headers=f"x-filler: {'a' * 60 * 1024}\r\n").partition(b"content-length")[0]
    data = head + f"content-length: {len(body)}\r\n\r\n".encode() + body
    async with gateway(saying("Hi")) as url:
        reader, writer = await connect(url)
        for first in range(0, len(data), 1024):
            writer.write(data[first : first + 1024])
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.readuntil(b'"content":"Hi"')
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
