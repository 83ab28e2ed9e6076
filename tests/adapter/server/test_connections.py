"""Limits of open connections: idle ones make room for new ones, and beyond that new ones are refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from adapter.server.connections import Connections, HttpLimits, default_max_connections
from adapter.server.protocol import HttpProtocol
from subnet.budget import Budget
from subnet.errors import ClientLimited, Overloaded
from tests.adapter.server.test_disconnect import NO_TIMEOUTS
from tests.adapter.server.test_http_protocol import END, FIRST_TOKEN, Waiting, connect, request
from tests.fakes import gateway, saying

GET = b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n"


def limited(connections: Connections, linger: float = 5.0) -> type[HttpProtocol]:
    """Return a protocol whose connections are all in `connections`."""

    class Limited(HttpProtocol):
        linger_timeout = linger

        def __init__(self, **more: Any) -> None:
            super().__init__(**more, accepted=connections)

    return Limited


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a request on an open connection, and return the head of the response."""
    writer.write(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"}")
    return head


async def test_a_new_connection_replaces_an_idle_one() -> None:
    """Beyond the maximum, the connection that has been idle for the longest time is closed, whether it has had a
    request or is in the middle of a head, and the new one is served.
    """
    connections = Connections(Budget("Connections", 3))
    async with gateway(saying("Hi"), http=limited(connections)) as url, asyncio.timeout(10):
        opened = [await connect(url) for _ in range(3)]
        for reader, writer in opened:
            assert (await get(reader, writer)).startswith(b"HTTP/1.1 200")
        opened[0][1].write(GET[:20])
        await get(*opened[1])
        for later in range(2):
            opened.append(await connect(url))
            assert (await get(*opened[-1])).startswith(b"HTTP/1.1 200")
            assert await opened[[0, 2][later]][0].read() == b""
        await get(*opened[1])
        for _, writer in opened:
            writer.close()


async def test_a_connection_beyond_the_maximum_is_refused() -> None:
    """If all connections have running requests, a new one gets a 503 that says when to return, and the running requests
    are answered. Once one of them has ended, a new connection is served.
    """
    may = asyncio.Semaphore(0)
    connections = Connections(Budget("Connections", 2))
    async with gateway(Waiting(may), limits=NO_TIMEOUTS, http=limited(connections)) as url, asyncio.timeout(10):
        busy = [await connect(url) for _ in range(2)]
        for answered, writer in busy:
            writer.write(request(stream=True))
            await answered.readuntil(FIRST_TOKEN)
        reader, writer = await connect(url)
        writer.write(request(more="x" * 100_000))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        may.release()
        may.release()
        for answered, _ in busy:
            assert await answered.readuntil(END)
        busy[0][1].close()
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/healthz")).status_code == 200
        busy[1][1].close()
    assert head.startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 2\r\n" in head
    assert b"\r\nconnection: close" in head
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("gateway_overloaded", "server_error")


async def test_liveness_when_all_connections_are_busy() -> None:
    """A liveness check on a connection beyond the maximum succeeds, and a readiness check says that it is full."""
    may = asyncio.Semaphore(0)
    connections = Connections(Budget("Connections", 1))
    async with gateway(Waiting(may), limits=NO_TIMEOUTS, http=limited(connections)) as url, asyncio.timeout(10):
        answered, busy = await connect(url)
        busy.write(request(stream=True))
        await answered.readuntil(FIRST_TOKEN)
        for path, status in (("/healthz", 200), ("/health?full=1", 200), ("/ping", 200), ("/readyz", 503)):
            reader, writer = await connect(url)
            # What follows on the connection is not served.
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() + GET)
            response = await reader.read()
            assert response.startswith(b"HTTP/1.1 %d " % status)
            assert response.count(b"HTTP/1.1") == 1
            assert b"\r\nconnection: close" in response
            writer.close()
        may.release()
        assert await answered.readuntil(END)
        busy.close()


async def test_the_share_of_an_address() -> None:
    """A client that has its share of running requests gets a 429 on a further connection, and clients at other
    addresses are served. Of its idle connections, a new one replaces the oldest: clients keep them for a while.
    """
    may = asyncio.Semaphore(0)
    connections = Connections(Budget("Connections", 4, 0.5), client_at=lambda address: address)
    async with (
        gateway(Waiting(may), limits=NO_TIMEOUTS, http=limited(connections)) as url,
        asyncio.timeout(10),
    ):
        port = int(url.rpartition(":")[2])
        other = await connect(url)
        many = []
        for _ in range(4):
            many.append(await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)))
            assert (await get(*many[-1])).startswith(b"HTTP/1.1 200")
        assert [await reader.read() for reader, _ in many[:2]] == [b"", b""]
        for reader, writer in many[2:]:
            writer.write(request(stream=True))
            await reader.readuntil(FIRST_TOKEN)
        many.append(await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)))
        assert (await get(*many[-1])).startswith(b"HTTP/1.1 429")
        assert (await get(*other)).startswith(b"HTTP/1.1 200")
        may.release()
        may.release()
        for reader, _ in many[2:4]:
            assert await reader.readuntil(END)
        for _, writer in [*many, other]:
            writer.close()


async def test_refused_connections_are_few_and_short() -> None:
    """Of many refused connections some hundred get a response, and the others are closed at once. One that sends no
    request is closed soon, which lets the next one have a response.
    """
    connections, may = Connections(Budget("Connections", 1)), asyncio.Semaphore(0)
    async with gateway(Waiting(may), limits=NO_TIMEOUTS, http=limited(connections, 0.2)) as url, asyncio.timeout(20):
        answered, busy = await connect(url)
        busy.write(request(stream=True))
        await answered.readuntil(FIRST_TOKEN)
        silent = [await connect(url) for _ in range(128)]
        assert await ask(url) == b""
        assert await asyncio.gather(*(reader.read() for reader, _ in silent)) == [b""] * 128
        assert (await ask(url)).startswith(b"HTTP/1.1 503")
        may.release()
        await answered.readuntil(END)
        for _, writer in [*silent, (answered, busy)]:
            writer.close()


async def ask(url: str) -> bytes:
    """Return the response to a request on a new connection; empty if the connection is closed without one."""
    reader, writer = await connect(url)
    writer.write(GET)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


class Peer:
    """Connection that records whether it was dropped."""

    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["open", "busy", "idle", "closed"]))))
def test_each_connection_is_counted_once(steps: list[tuple[int, str]]) -> None:
    """Whatever happens to connections, the budget has those that are open, and only idle ones are dropped: of the same
    client if that has used up its share.
    """
    budget = Budget("Connections", 4, 0.5)
    connections, peers = Connections(budget, client_at=lambda address: address), [Peer() for _ in range(8)]
    opened, busy, used = set[int](), set[int](), set[int]()
    for number, step in steps:
        peer, client = peers[number], number % 2
        own = {one for one in opened if one % 2 == client}
        if step == "open" and number not in opened:
            peer.dropped = False
            try:
                connections.open(peer, str(client))
                opened.add(number)
            except (Overloaded, ClientLimited):
                assert len(own) == 2
                assert not own & used - busy
        elif step == "busy" and number in opened:
            connections.mark_busy(peer)
            busy.add(number)
        elif step == "idle" and number in busy:
            connections.mark_idle(peer)
            busy.discard(number)
            used.add(number)
        elif step == "closed":
            connections.closed(peer)
            opened.discard(number)
            busy.discard(number)
        dropped = {one for one in opened if peers[one].dropped}
        assert not dropped & busy
        assert dropped <= own or len(own) < 2
        opened -= dropped
        used &= opened
        assert budget.used == len(opened)


def test_the_default_maximum_leaves_files_for_nodes() -> None:
    """By default, fewer connections are accepted than the process may open files."""
    assert 0 < default_max_connections() <= 16384


async def test_the_limits_of_heads_are_settings() -> None:
    """A head beyond the set sizes gets a 431, and one within them is served."""
    connections = Connections(limits=HttpLimits(max_head=16 * 1024, max_fields=20))
    async with gateway(saying("Hi"), http=limited(connections)) as url, httpx.AsyncClient(base_url=url) as client:
        for headers, status in (
            ({"x": "y" * 8_000}, 200),
            ({"x": "y" * 30_000}, 431),
            ({f"x-{number}": "y" for number in range(10)}, 200),
            ({f"x-{number}": "y" for number in range(30)}, 431),
        ):
            assert (await client.get("/healthz", headers=headers)).status_code == status
