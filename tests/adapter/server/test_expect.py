"""Requests with `Expect: 100-continue` that are answered before their body is read."""

from __future__ import annotations

import asyncio

import pytest

from adapter.config import Settings
from adapter.server.protocol import HttpProtocol
from tests.adapter.server.test_http_protocol import connect, request
from tests.fakes import gateway, saying

EXPECT = "expect: 100-continue\r\n"
GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def head(path: str = "/v1/chat/completions", length: int = 100, *, version: str = "1.1", more: str = "") -> bytes:
    return f"POST {path} HTTP/{version}\r\nhost: localhost\r\n{EXPECT}{more}content-length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (head("/v1/nowhere"), 404),
        (head("/healthz"), 405),
        (head(length=2**30), 413),
        (head(), 401),
    ],
)
@pytest.mark.parametrize("behind", [GET, b"x" * 100 + GET])
async def test_an_early_refusal_closes_the_connection(start: bytes, status: int, behind: bytes) -> None:
    """The response says that the connection closes, and it does: what the client sends next is neither taken for the
    body nor for a request, and does not keep it from reading the response."""
    settings = Settings(access_log=False, api_keys=("secret",) if status == 401 else ())
    async with gateway(saying("Hi"), settings=settings) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(start)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.write(behind)
        rest = await reader.read()
        writer.close()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close\r\n" in answer
    assert rest.startswith(b'{"error":')
    assert b"HTTP/1.1" not in rest


class ShortLingerTimeout(HttpProtocol):
    linger_timeout = 0.05


async def test_a_client_that_keeps_sending() -> None:
    """A connection that is to be closed is closed, though its client keeps sending."""
    async with gateway(saying("Hi"), http=ShortLingerTimeout) as url, asyncio.timeout(20):
        reader, writer = await connect(url)
        writer.write(head("/v1/nowhere", 2**30))
        assert (await reader.read()).startswith(b"HTTP/1.1 404")
        with pytest.raises(ConnectionError):
            await send_endlessly(writer)
        writer.close()


async def send_endlessly(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 1000)
        await writer.drain()
        await asyncio.sleep(0)


async def test_a_body_that_was_waited_for() -> None:
    """A body that the server asked for is read, and the connection stays open."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        start, _, body = request(headers=EXPECT).partition(b"\r\n\r\n")
        writer.write(start + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
        writer.write(GET)
        await reader.readuntil(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_http_1_0_has_no_interim_response() -> None:
    """The expectation of an HTTP/1.0 client is ignored."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        start, _, body = request("1.0", headers=EXPECT).partition(b"\r\n\r\n")
        writer.write(start + b"\r\n\r\n")
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
