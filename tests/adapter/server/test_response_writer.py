"""Responses as they are written to a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
import uvicorn
from uvicorn.server import ServerState

from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.protocol import HttpProtocol
from adapter.server.response_writer import encode_head, writer_of
from adapter.server.responses import Response, encode_headers
from subnet.aio import Sink


class Memory(asyncio.Transport):
    """Records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def response_to(app: ASGIApp, *, method: str = "GET", version: str = "1.1") -> Memory:
    """Return the connection after one request to `app`."""
    state, transport = ServerState(), Memory()
    config = uvicorn.Config(app, http=HttpProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    protocol = HttpProtocol(config, state, {})
    protocol.connection_made(transport)
    protocol.data_received(f"{method} / HTTP/{version}\r\nhost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(5):
        await asyncio.gather(*state.tasks)
    alive = not transport.closed
    protocol.connection_lost(None)
    transport.closed = not alive
    return transport


async def test_a_whole_response_is_one_write() -> None:
    """Status, headers and body are sent in a single write."""
    transport = await response_to(Response(b"hello", headers={"x-a": "b"}, media_type="text/plain"))
    assert transport.written == [
        b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
    ]
    assert not transport.closed


class Streaming:
    """ASGI application whose body is written by a producer."""

    def __init__(self, produce: Callable[[Sink[bytes]], Awaitable[None]], headers: Mapping[str, str]) -> None:
        self._produce = produce
        self._headers = encode_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._produce(writer_of(scope).write)
        await send({"type": "http.response.body"})


async def produce(write: Sink[bytes]) -> None:
    write(b"one")
    write(b"two")
    await asyncio.sleep(0.01)
    write(b"three")
    write(b"four")


async def test_parts_are_written_together() -> None:
    """The head is sent with the first part, all parts of a loop iteration together, and the end with the last part."""
    transport = await response_to(Streaming(produce, {"x-a": "b"}))
    assert transport.written == [
        b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n",
        b"9\r\nthreefour\r\n0\r\n\r\n",
    ]


async def test_a_response_start_without_a_body() -> None:
    """A response start may be replaced before the first part, so that an early error gets a status of its own."""

    async def fails(write: Sink[bytes]) -> None:
        raise ValueError("no")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match="no"):
            await Streaming(fails, {"x-a": "b"})(scope, receive, send)
        await Response(b"no", status=500, media_type="text/plain")(scope, receive, send)

    transport = await response_to(app)
    assert transport.written == [
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno"
    ]


async def test_an_invalid_head() -> None:
    """A head with a line break in a header is replaced by a 500 response."""
    transport = await response_to(Response(b"yes", headers={"x-a": "b\r\nx-c: d"}))
    (sent,) = transport.written
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"x-c" not in sent


async def test_parts_without_chunks() -> None:
    """With HTTP/1.0 the response ends with the connection."""
    transport = await response_to(Streaming(produce, {}), version="1.0")
    assert b"".join(transport.written) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwothreefour"
    assert transport.closed


@pytest.mark.parametrize("response", [Response(b"hello", media_type="text/plain"), Streaming(produce, {})])
async def test_head_has_no_body(response: ASGIApp) -> None:
    """The response to HEAD has neither a body nor chunks, whole or streamed."""
    transport = await response_to(response, method="HEAD")
    assert b"".join(transport.written).endswith(b"\r\n\r\n")
    assert b"".join(transport.written).count(b"\r\n\r\n") == 1
    assert b"chunked" not in transport.written[0]


async def test_no_content() -> None:
    """A response without a body has no content headers."""
    transport = await response_to(Response(status=204, media_type=None))
    assert transport.written == [b"HTTP/1.1 204 No Content\r\n\r\n"]


async def test_a_second_response() -> None:
    """A second response to a request raises, as clients would take it for the response to the next request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"one")(scope, receive, send)
        with pytest.raises(RuntimeError, match="already complete"):
            await Response(b"two")(scope, receive, send)

    transport = await response_to(app)
    assert b"two" not in b"".join(transport.written)


async def test_a_disconnected_client() -> None:
    """Responding to a disconnected client sends nothing and raises nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        writer_of(scope).disconnect()
        await Response(b"hello")(scope, receive, send)

    assert (await response_to(app)).written == []


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\r"])
def test_a_header_is_one_line(value: bytes) -> None:
    """A header with a line break raises, as it could inject headers or a response."""
    with pytest.raises(ValueError, match="line breaks"):
        encode_head(200, [(b"x-a", value)])
