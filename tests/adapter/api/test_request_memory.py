"""The memory that the bodies of all requests need is limited, in all and for each client."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from adapter.config import Settings
from subnet.protocols.base import Protocol
from tests.adapter.server.test_disconnect import NO_TIMEOUTS
from tests.adapter.server.test_http_protocol import FIRST_TOKEN, Waiting, connect
from tests.fakes import ASK, gateway, saying

KEYS = ("key-of-a", "key-of-b", "key-of-c")
CHAT = "/v1/chat/completions"
SETTINGS = Settings(api_keys=KEYS, access_log=False, max_request_memory=4096, max_client_share=0.5)


@asynccontextmanager
async def serving(node: Protocol) -> AsyncIterator[tuple[str, list[httpx.AsyncClient]]]:
    """Run a gateway, and yield its URL and a client with each key."""
    async with gateway(node, settings=SETTINGS, limits=NO_TIMEOUTS) as url:
        headers = [{"authorization": f"Bearer {key}"} for key in KEYS]
        clients = [httpx.AsyncClient(base_url=url, headers=each) for each in headers]
        yield url, clients
        for client in clients:
            await client.aclose()


async def start_body(
    url: str, key: str, size: int, stream: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request whose body has `size` bytes, of which the last is left out unless the answer is streamed."""
    reader, writer = await connect(url)
    body = msgspec.json.encode({**ASK, "stream": stream})
    body = b" " * (size - len(body)) + body
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-length: {size}\r\n\r\n"
    writer.write(head.encode() + (body if stream else body[:-1]))
    return reader, writer


async def until(client: httpx.AsyncClient, holds: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Send requests until a response meets a condition, and return it."""
    async with asyncio.timeout(10):
        while True:
            response = await client.post(CHAT, json=ASK)
            if holds(response):
                return response


async def test_unfinished_bodies() -> None:
    """A client whose unfinished bodies use up its share gets a 429, and others are served; once they use up the whole,
    all get a 503. When the clients that send them leave, everyone is served again.
    """
    async with serving(saying("Hi")) as (url, (a, b, c)):
        _, first = await start_body(url, KEYS[0], 2000)
        limited = await until(a, lambda response: response.status_code != 200)
        assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(limited.headers["retry-after"]) >= 1
        assert (await b.post(CHAT, json=ASK)).status_code == 200
        _, second = await start_body(url, KEYS[1], 2040)
        overloaded = await until(c, lambda response: response.status_code != 200)
        assert (overloaded.status_code, overloaded.json()["error"]["code"]) == (503, "gateway_overloaded")
        first.close()
        second.close()
        for client in (a, b, c):
            await until(client, lambda response: response.status_code == 200)


async def test_running_requests() -> None:
    """The body of a request counts until its response ends."""
    may = asyncio.Semaphore(0)
    async with serving(Waiting(may)) as (url, (a, _, _)):
        reader, writer = await start_body(url, KEYS[0], 2048, stream=True)
        await reader.readuntil(FIRST_TOKEN)
        assert (await a.post(CHAT, json=ASK)).status_code == 429
        for _ in range(100):
            may.release()
        await reader.readuntil(b"[DONE]")
        writer.close()
        await until(a, lambda response: response.status_code == 200)


@pytest.mark.parametrize("size", [2000, 3000])
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_body_larger_than_the_share(size: int, compressed: bool) -> None:
    """A body that its client could never send gets a 413, which is not repeated, and not a 429. A compressed one counts
    with its size after decompression.
    """
    body = msgspec.json.encode(ASK).ljust(size)
    content, headers = (zlib.compress(body), {"content-encoding": "deflate"}) if compressed else (body, {})
    async with serving(saying("Hi")) as (_, (a, _, _)):
        response = await a.post(CHAT, content=content, headers=headers)
        assert response.status_code == (200 if size < 2048 else 413)
        assert (await a.post(CHAT, json=ASK)).status_code == 200
