"""Connections to servers: which are used again, and what happens when the server closes one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import pytest

from subnet.errors import NodeLost, RateLimited, ResponseLost, WireError
from subnet.http.client import HttpClient
from subnet.http.connection_pool import idle_timeout
from subnet.http.node_spec import NodeSpec
from subnet.http.sse import Event
from tests.chat_node import chat, node
from tests.provider import CHAT, Provider, answer, event, text_events

EVENTS = b"".join([*text_events("Hello there."), event("[DONE]")])
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(EVENTS) + EVENTS
CHUNK = b"%x\r\n%b\r\n" % (len(EVENTS), EVENTS)

Handle = Callable[["Client", int], None]
"""Answers a request, the number of which on its connection is given, beginning with 0."""


class Server:
    """Server that records the number of requests on each connection, in the order of the connections."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[int] = []
        self.clients: list[Client] = []

    @property
    def spec(self) -> NodeSpec:
        return NodeSpec(url=self.url)


class Client(asyncio.Protocol):
    """A connection to the server."""

    def __init__(self, server: Server, handle: Handle) -> None:
        self._server = server
        self._handle = handle
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._at = len(self._server.requests)
        self._server.requests.append(0)
        self._server.clients.append(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if found and len(body) >= int(length):
            self._data = b""
            self._server.requests[self._at] += 1
            self._handle(self, self._server.requests[self._at] - 1)

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def reset(self) -> None:
        """Close the connection with an error at the other end."""
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()


@asynccontextmanager
async def serving(handle: Handle, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Client(server, handle), host, 0, backlog=1000) as listening:
        server.url = f"http://{host}:{listening.sockets[0].getsockname()[1]}"
        yield server
        for client in server.clients:
            client.close()


async def collect(http: HttpClient) -> list[Event]:
    async with http.events(CHAT, {}) as events:
        return [each async for each in events]


def whole(client: Client, number: int) -> None:
    client.send(WHOLE)


async def test_connections_are_reused() -> None:
    """One connection is used for requests that follow one another, and as many as needed for simultaneous ones."""
    async with serving(whole) as server, HttpClient(server.spec) as http:
        for _ in range(3):
            await collect(http)
        assert server.requests == [3]
        await asyncio.gather(*[collect(http) for _ in range(3)])
        assert sorted(server.requests) == [1, 1, 4]


async def test_connections_to_llama_server_are_not_reused() -> None:
    """A connection to a llama-server is used for one request only, because it closes them without a word."""
    async with Provider() as provider, HttpClient(NodeSpec(url=provider.url, kind="llama-server")) as http:
        for _ in range(3):
            await collect(http)
        assert [request.headers["Connection"] for request in provider.chat_requests] == ["close"] * 3


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [
        ("", 4.0),
        ("max=100", 4.0),
        ("timeout=5", 4.0),
        ("timeout=5, max=1000", 4.0),
        ("max=5; Timeout=3", 2.0),
        ("timeout=72", 15.0),
        ("timeout=99999999999", 4.0),
        ("timeout=1", 0.0),
        ("timeout=0", 0.0),
        ("xtimeout=9", 4.0),
    ],
)
def test_connections_are_kept_for_less_than_the_server_keeps_them(keep_alive: str, seconds: float) -> None:
    """A connection is kept until a second before the server's idle timeout, or for 4 s if it names none."""
    assert idle_timeout(keep_alive) == seconds


async def test_short_idle_timeout_prevents_reuse() -> None:
    """A connection that the server closes within a second is not used again."""

    def handle(client: Client, number: int) -> None:
        client.send(WHOLE.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=1\r\n\r\n", 1))

    async with serving(handle) as server, HttpClient(server.spec) as http:
        await collect(http)
        await collect(http)
        assert server.requests == [1, 1]


@pytest.mark.parametrize("leave", [Client.close, Client.reset])
async def test_request_lost_on_a_reused_connection_is_sent_again(leave: Callable[[Client], None]) -> None:
    """A request that a reused connection loses before any byte of a response is sent once more, on a new one."""

    def handle(client: Client, number: int) -> None:
        client.send(WHOLE) if number == 0 else leave(client)

    async with serving(handle) as server, HttpClient(server.spec) as http:
        expected = await collect(http)
        assert await collect(http) == expected
        assert server.requests == [2, 1]


@pytest.mark.parametrize("leave", [Client.close, Client.reset])
async def test_request_lost_on_a_new_connection_is_not_sent_again(leave: Callable[[Client], None]) -> None:
    """A request that a new connection loses fails, whether it is the first or the one sent again."""

    def handle(client: Client, number: int) -> None:
        client.send(WHOLE) if len(server.requests) == 1 and number == 0 else leave(client)

    async with serving(handle) as server, HttpClient(server.spec) as http:
        await collect(http)
        with pytest.raises(ResponseLost):
            await collect(http)
        assert server.requests == [2, 1]
        with pytest.raises(ResponseLost):
            await collect(http)
        assert server.requests == [2, 1, 1]


@pytest.mark.parametrize("started", [b"H", HEAD, HEAD + b"content-length: 999\r\n\r\n"])
async def test_lost_response_on_a_reused_connection_is_lost(started: bytes) -> None:
    """A response of which a byte has arrived on a reused connection is not requested again."""

    def handle(client: Client, number: int) -> None:
        client.send(WHOLE if number == 0 else started)
        if number:
            client.close()

    async with serving(handle) as server, HttpClient(server.spec) as http:
        await collect(http)
        with pytest.raises(ResponseLost):
            await collect(http)
        assert server.requests == [2]


async def test_closed_idle_connection_is_forgotten() -> None:
    """A connection that the server closes while it is idle, with or without a word, is not used again."""

    def handle(client: Client, number: int) -> None:
        client.send(WHOLE)
        if len(server.requests) == 2:
            client.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        client.close()

    async with serving(handle) as server, HttpClient(server.spec) as http:
        for _ in range(3):
            await collect(http)
            while http._connections._idle:
                await asyncio.sleep(0)
        assert server.requests == [1, 1, 1]


async def test_server_that_closes_idle_connections_under_load() -> None:
    """A server that closes its idle connections whenever it likes costs no request, however many there are."""
    dice = Random(1)

    def handle(client: Client, number: int) -> None:
        client.send(WHOLE)
        if dice.random() < 0.5:
            leave = dice.choice([client.close, client.reset])
            asyncio.get_running_loop().call_later(dice.uniform(0, 0.01), leave)

    async def ask(times: int) -> None:
        for _ in range(times):
            result = await chat(protocol)
            assert (result.text(), result.finishes()) == ("Hello there.", ["stop"])

    async with serving(handle) as server, node(server.url) as protocol:
        await asyncio.gather(*[ask(20) for _ in range(50)])
        assert 1000 <= sum(server.requests) <= 2000
        assert len(server.requests) < sum(server.requests)


async def test_connection_is_reused_after_the_last_needed_event() -> None:
    """The end of a response that follows [DONE] is awaited in the background, so that the connection can be reused."""

    def handle(client: Client, number: int) -> None:
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNK)

    async with serving(handle) as server, HttpClient(server.spec) as http:
        await collect(http)
        server.clients[0].send(b"0\r\n\r\n")
        while not http._connections._idle:
            await asyncio.sleep(0)
        await collect(http)
        assert server.requests == [2]


async def test_response_without_end_closes_its_connection() -> None:
    """A response that does not end after [DONE] is complete, and its connection is closed soon."""

    def handle(client: Client, number: int) -> None:
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNK)

    async with serving(handle) as server, HttpClient(server.spec) as http:
        await collect(http)
        while http._connections._open:
            await asyncio.sleep(0.001)
        await collect(http)
        assert server.requests == [1, 1]


async def test_connection_is_reused_after_an_error_response() -> None:
    """A connection is reused after an error response, which raises the same error as on a new one."""

    def handle(client: Client, number: int) -> None:
        client.send(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(handle) as server, HttpClient(server.spec) as http:
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await collect(http)
            assert caught.value.retry_after == 7
        assert server.requests == [2]


async def test_large_error_body_is_cut_off() -> None:
    """An error body without end is read up to its limit, and closes the connection."""

    def handle(client: Client, number: int) -> None:
        client.send(b"HTTP/1.1 429 Slow Down\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000)

    async with serving(handle) as server, HttpClient(server.spec) as http:
        for _ in range(2):
            with pytest.raises(RateLimited):
                await collect(http)
        while http._connections._open:
            await asyncio.sleep(0.001)
        assert server.requests == [1, 1]


async def test_connection_with_an_unsent_request_is_not_reused() -> None:
    """A server that answers before it has read the whole request does not get another one on the same connection."""

    class Early(Client):
        def data_received(self, data: bytes) -> None:
            self._transport.pause_reading()
            self.send(WHOLE)

    server = Server()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Early(server, whole), "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with HttpClient(server.spec) as http:
            for _ in range(2):
                async with http.events(CHAT, {"messages": "x" * (32 << 20)}) as events:
                    assert [each async for each in events]
        for client in server.clients:
            client.reset()
    assert len(server.clients) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        HEAD + b"x" * 100_000,
        HEAD + b"a: b\r\n" * 200 + b"\r\n",
        HEAD + b"content-length: 1, 2\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nnot a size\r\n",
        HEAD + b"content-encoding: br\r\ncontent-length: 1\r\n\r\nx",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
    ],
)
async def test_invalid_http_is_a_wire_error(data: bytes) -> None:
    """A response that is not valid HTTP, or beyond a limit, raises WireError and closes the connection."""

    def handle(client: Client, number: int) -> None:
        client.send(data)

    async with serving(handle) as server, HttpClient(server.spec) as http:
        with pytest.raises(WireError, match="invalid HTTP response"):
            await collect(http)
        while http._connections._open:
            await asyncio.sleep(0)
        assert server.requests == [1]


async def test_error_of_a_sink_closes_the_connection() -> None:
    """An error that a sink raises reaches the caller of the request, and closes the connection."""

    class Sink:
        done = False
        is_json = False

        def data(self, data: bytes) -> None:
            raise TimeoutError("of the sink")

        def event(self, event: Event) -> None:
            self.data(b"")

    async with serving(whole) as server, HttpClient(server.spec) as http:
        with pytest.raises(TimeoutError, match="of the sink"):
            await http.stream(CHAT, {}, Sink())
        while http._connections._open:
            await asyncio.sleep(0)


async def test_name_with_several_addresses() -> None:
    """A host name is looked up once, and an address that accepts no connections does not hinder the others."""
    async with serving(whole, "127.0.0.1") as server:
        url = server.url.replace("127.0.0.1", "localhost")
        async with HttpClient(NodeSpec(url=url, kind="llama-server")) as http:
            for _ in range(2):
                await collect(http)
        assert server.requests == [1, 1]


async def test_client_can_be_used_after_it_was_closed() -> None:
    """Closing a client closes its connections, idle or not; a further request opens a new one."""

    def handle(client: Client, number: int) -> None:
        if len(server.requests) != 2:
            client.send(WHOLE)

    async with serving(handle) as server:
        http = HttpClient(server.spec)
        await collect(http)
        await http.aclose()
        waiting = asyncio.create_task(collect(http))
        while server.requests != [1, 1]:
            await asyncio.sleep(0)
        await http.aclose()
        with pytest.raises(NodeLost):
            await asyncio.wait_for(waiting, 5)
        await collect(http)
        await http.aclose()
        assert server.requests == [1, 1, 1]


async def test_request_has_one_length_and_the_operators_headers() -> None:
    """The operator's headers are sent, and cannot change how a request is framed."""
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "1", "Host": "other", "X-Title": "test"}
    async with Provider(answer()) as provider, HttpClient(NodeSpec(url=provider.url, headers=headers)) as http:
        await collect(http)
        sent: dict[str, Any] = {name.lower(): value for name, value in provider.chat_requests[0].headers.items()}
    assert (sent["content-length"], sent["host"], sent["x-title"]) == ("2", "other", "test")
    assert "transfer-encoding" not in sent
