"""What clients of other manners than most may expect of the server."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import pytest

from adapter.http.protocol import HttpProtocol
from subnet.protocols.mock import Pause
from tests.fakes import ASK, events_of, gateway, saying
from tests.test_disconnect import PATIENT, Watched

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
