"""Limits of what a connection accepts: header fields, pipelined requests, and the time for a head."""

from __future__ import annotations

import asyncio
import json

import pytest

from adapter.server.connections import HttpLimits
from adapter.server.protocol import HttpProtocol
from tests.adapter.server.test_disconnect import NO_TIMEOUTS
from tests.adapter.server.test_http_protocol import (
    CHUNKED,
    ShortIdleTimeout,
    Waiting,
    connect,
    request,
)
from tests.fakes import gateway, saying

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
COUNT = 20_000
MAX_FIELDS = HttpLimits().max_fields


def fields(number: int) -> bytes:
    return b"".join(b"x-%d: y\r\n" % index for index in range(number))


@pytest.mark.parametrize(
    "start", [GET + fields(MAX_FIELDS), CHUNKED + b"2\r\n{}\r\n0\r\n" + fields(MAX_FIELDS)], ids=["head", "trailers"]
)
async def test_too_many_fields(start: bytes) -> None:
    """One field too many, in the head or the trailers, gets status 431, and the connection is closed."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(start + b"\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 431")
    assert json.loads(body)["error"]["code"] == "headers_too_large"


async def test_as_many_fields_as_allowed() -> None:
    """The maximum number of fields is accepted."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(GET + fields(MAX_FIELDS - 1) + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_many_requests_in_a_pipeline() -> None:
    """Few of them are parsed before the first is answered, and all are answered in the end."""
    may, most = asyncio.Semaphore(0), 0

    class Counted(HttpProtocol):
        def on_headers_complete(self) -> None:
            nonlocal most
            super().on_headers_complete()
            most = max(most, len(self.pipeline))

    async with gateway(Waiting(may), limits=NO_TIMEOUTS, http=Counted) as url, asyncio.timeout(100):
        reader, writer = await connect(url)
        writer.write(request() + (GET + b"\r\n") * COUNT + GET + b"connection: close\r\n\r\n")
        may.release()
        answers = await reader.read()
        writer.close()
    assert answers.count(b"HTTP/1.1 200") == COUNT + 2
    assert 8 <= most < 8 + 1024 // len(GET)


@pytest.mark.parametrize(
    ("chunk", "count", "status"),
    [(b"1\r\nx\r\n", 200_000, 400), (b"1;" + b"a" * 60_000 + b"\r\nx\r\n", 10, 400), (b"4\r\nxxxx\r\n", 50_000, 200)],
    ids=["one byte", "extensions", "four bytes"],
)
async def test_chunks_that_are_mostly_framing(chunk: bytes, count: int, status: int) -> None:
    """A long body in chunks of one byte, or with long chunk extensions, gets a 400; one in short chunks does not."""
    start, end = b'2a\r\n{"model":"mock","max_tokens":1,"messages":\r\n', b"0\r\n\r\n"
    text = [b'29\r\n[{"role":"user","content":"go"}],"user":"\r\n', chunk * count, b'2\r\n"}\r\n']
    async with gateway(saying("Hi")) as url, asyncio.timeout(20):
        reader, writer = await connect(url)
        writer.write(b"".join([CHUNKED, start, *text, end]))
        assert (await reader.readline()).split()[1] == b"%d" % status
        writer.close()


async def test_a_head_that_arrives_slowly() -> None:
    """More data does not extend the time for a head."""
    async with gateway(saying("Hi"), http=ShortIdleTimeout) as url, asyncio.timeout(10):
        _, writer = await connect(url)
        writer.write(GET)
        with pytest.raises(ConnectionError):
            await send_fields(writer)
        writer.close()


async def send_fields(writer: asyncio.StreamWriter) -> None:
    for _ in range(MAX_FIELDS - 10):
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
