"""How answers are written to a connection."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.protocol import HttpProtocol
from adapter.server.response_writer import caller_of, head
from adapter.server.responses import PushedResponse, Response, Write


class Memory(asyncio.Transport):
    """Keeps what is written to it, write by write."""

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


async def answered(app: ASGIApp, *, method: str = "GET", version: str = "1.1") -> Memory:
    """What a connection was given for one request."""
    state, transport = ServerState(), Memory()
    config = uvicorn.Config(app, http=HttpProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    protocol = HttpProtocol(config, state, {})
    protocol.connection_made(transport)
    protocol.data_received(f"{method} / HTTP/{version}\r\nhost: x\r\n\r\n".encode())
    async with asyncio.timeout(5):
        await asyncio.gather(*state.tasks)
    kept = not transport.closed
    protocol.connection_lost(None)
    transport.closed = not kept
    return transport


async def test_a_whole_answer_is_one_write() -> None:
    """Status, headers and body."""
    transport = await answered(Response(b"hello", headers={"x-a": "b"}, media_type="text/plain"))
    assert transport.written == [
        b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
    ]
    assert not transport.closed


async def produce(write: Write) -> None:
    write(b"one")
    write(b"two")
    await asyncio.sleep(0.01)
    write(b"three")
    write(b"four")


async def test_parts_are_written_together() -> None:
    """The head goes with the first, at once; then those of a turn are one write, and the end goes with the last."""
    transport = await answered(PushedResponse(produce, {"x-a": "b"}))
    assert transport.written == [
        b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n",
        b"9\r\nthreefour\r\n0\r\n\r\n",
    ]


async def test_a_start_that_nothing_followed() -> None:
    """Another may take its place, so that what goes wrong before the first part is told with a status of its own."""

    async def fails(write: Write) -> None:
        raise ValueError("no")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match="no"):
            await PushedResponse(fails, {"x-a": "b"})(scope, receive, send)
        await Response(b"no", status=500, media_type="text/plain")(scope, receive, send)

    transport = await answered(app)
    assert transport.written == [
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno"
    ]


async def test_a_head_that_cannot_be() -> None:
    """Nothing of it is sent, so that its client can be told."""
    transport = await answered(Response(b"yes", headers={"x-a": "b\r\nx-c: d"}))
    (said,) = transport.written
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"x-c" not in said


async def test_parts_without_chunks() -> None:
    """For HTTP/1.0 the end of the connection is that of the answer."""
    transport = await answered(PushedResponse(produce, {}), version="1.0")
    assert b"".join(transport.written) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwothreefour"
    assert transport.closed


@pytest.mark.parametrize("response", [Response(b"hello", media_type="text/plain"), PushedResponse(produce, {})])
async def test_head_has_no_body(response: ASGIApp) -> None:
    """However it was made, and no chunks either."""
    transport = await answered(response, method="HEAD")
    assert b"".join(transport.written).endswith(b"\r\n\r\n")
    assert b"".join(transport.written).count(b"\r\n\r\n") == 1
    assert b"chunked" not in transport.written[0]


async def test_no_content() -> None:
    """An answer without a body says nothing of one."""
    transport = await answered(Response(status=204, media_type=None))
    assert transport.written == [b"HTTP/1.1 204 No Content\r\n\r\n"]


async def test_what_comes_after_the_end() -> None:
    """A second answer to a request would be taken for that to the next one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"one")(scope, receive, send)
        with pytest.raises(RuntimeError, match="already complete"):
            await Response(b"two")(scope, receive, send)

    transport = await answered(app)
    assert b"two" not in b"".join(transport.written)


async def test_who_left_is_told_nothing() -> None:
    """And who answers need not know."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        caller_of(scope).hang_up()
        await Response(b"hello")(scope, receive, send)

    assert (await answered(app)).written == []


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\r"])
def test_a_header_is_one_line(value: bytes) -> None:
    """Whoever says otherwise could write headers, or an answer, of their own."""
    with pytest.raises(ValueError, match="line breaks"):
        head(200, [(b"x-a", value)])
