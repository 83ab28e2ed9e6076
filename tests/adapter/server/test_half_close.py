"""Clients that stop sending after their requests, and clients that leave: both send a FIN."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from adapter.config import Settings
from subnet.protocols.mock import Pause
from tests.adapter.server.test_disconnect import NO_TIMEOUTS, Watched, Wordy, gone
from tests.adapter.server.test_http_protocol import BROKEN, END, FIRST_TOKEN, Waiting, connect, request
from tests.fakes import gateway, saying

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
PROBE = b"HTTP/1.1 "


async def answer_to(url: str, data: bytes) -> bytes:
    """Send `data`, half-close, and return everything that arrives until the server closes."""
    reader, writer = await connect(url)
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_half_close_at_once(version: str, stream: bool, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The answer arrives whole, and then the connection is closed."""

    async def main() -> bytes:
        async with gateway(saying("Hi")) as url, asyncio.timeout(20):
            return await answer_to(url, request(version, stream=stream))

    with asyncio.Runner(loop_factory=loop) as runner:
        head, _, body = runner.run(main()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"Hi" in body if not stream else b"[DONE]" in body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_slow_answer(version: str, stream: bool) -> None:
    """A client that half-closed is probed, before the response with the first bytes of it, and gets its answer."""
    may = asyncio.Semaphore(0)
    settings = Settings(access_log=False, sse_keep_alive=3600)
    async with gateway(Waiting(may), limits=NO_TIMEOUTS, settings=settings) as url, asyncio.timeout(20):
        reader, writer = await connect(url)
        writer.write(request(version, stream=stream))
        if stream:
            await reader.readuntil(FIRST_TOKEN)
        writer.write_eof()
        await reader.readuntil(b": keep-alive" if stream else PROBE)
        may.release()
        body = await reader.read()
        writer.close()
    if stream:
        assert b"data: [DONE]\n\n" in body
    else:
        head, _, body = body.partition(b"\r\n\r\n")
        assert head.startswith(b"200 OK\r\n")
        assert json.loads(body)["choices"][0]["message"]["content"] == "AB"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_half_close_while_data_is_unsent(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A client that half-closes while data is unsent gets all of it; a reset after that frees the node."""
    node = Wordy()

    async def main() -> bytes:
        async with gateway(node, limits=NO_TIMEOUTS) as url, asyncio.timeout(30):
            before = asyncio.all_tasks()
            reader, writer = await connect(url)
            writer.write(request(stream=True))
            data = bytearray(await reader.readuntil(b"xxxx"))
            writer.write_eof()
            while FIRST_TOKEN not in data[-1000:]:
                data += await reader.read(65536)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            await gone(node, before)
        return bytes(data)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()).count(b"x" * 2**20) == 32


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_leaves(stream: bool, version: str, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A client that closes its connection while its node is silent is noticed, and the node is freed."""
    node = Watched([Pause()])
    settings = Settings(access_log=False, sse_keep_alive=3600)

    async def main() -> None:
        async with gateway(node, limits=NO_TIMEOUTS, settings=settings) as url:
            before = asyncio.all_tasks()
            _, writer = await connect(url)
            writer.write(request(version, stream=stream))
            await node.began.wait()
            writer.close()
            await gone(node, before)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_requests_in_a_pipeline() -> None:
    """All requests that arrived before the half-close are answered."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(20):
        data = await answer_to(url, request(stream=True) + request(stream=True))
    assert data.count(b"HTTP/1.1 200") == data.count(END) == 2


@pytest.mark.parametrize("rest", [b"POST /v1/chat", request()[:-5], BROKEN])
async def test_an_incomplete_request_behind_another(rest: bytes) -> None:
    """The complete request is answered, the other one is not."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(20):
        data = await answer_to(url, request(stream=True) + rest)
    assert data.count(b"HTTP/1.1 200") == data.count(b"HTTP/1.1 ") == 1
    assert data.endswith(END)


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat", request()[:-5]])
async def test_an_incomplete_request(start: bytes) -> None:
    """A client that stops sending within its first request is disconnected."""
    async with gateway(saying("Hi")) as url, asyncio.timeout(20):
        assert await answer_to(url, start) == b""
