"""Host names whose name server does not answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
import uvloop
from aiohappyeyeballs import AddrInfoType

from subnet.errors import NodeLost
from subnet.http.client import HttpClient
from subnet.http.lookup import Names, _Resolver
from subnet.http.node_spec import NodeSpec
from subnet.protocols.websocket import WebSocketProtocol
from tests.provider import CHAT, Provider, answer

_LOOPBACK: AddrInfoType = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))


class SilentServer:
    """Name server on loopback that receives queries and never answers, and a look-up that waits for it."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind(("127.0.0.1", 0))
        self._ended = threading.Event()

    def look_up(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """Ask the server, and wait for its answer until the end of the test."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(self._server.getsockname())
            client.settimeout(0.05)
            client.send(host.encode())
            self.asked[host] += 1
            while not self._ended.is_set():
                with suppress(OSError):
                    client.recv(512)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def end(self) -> None:
        self._ended.set()
        self._server.close()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.end()


@contextmanager
def on_uvloop() -> Iterator[asyncio.Runner]:
    """Yield a runner with the event loop of the gateway, whose own look-ups share four threads."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


async def _hang(names: Names, started: SilentServer, count: int) -> list[asyncio.Task[object]]:
    """Start requests to `count` nodes whose names are never found, over both protocols."""
    tasks: list[asyncio.Task[object]] = []
    for number in range(count):
        spec = NodeSpec(url=f"http://node-{number}.test", connect_timeout=600)
        tasks.append(asyncio.create_task(_get(HttpClient(spec, names))))
        tasks.append(asyncio.create_task(_stream(HttpClient(spec, names))))
        tasks.append(asyncio.create_task(_info(WebSocketProtocol(spec.url, connect_timeout=600, names=names))))
    while len(started.asked) < count:
        await asyncio.sleep(0.001)
    return tasks


async def _get(http: HttpClient) -> object:
    async with http:
        return await http.get("/v1/models")


async def _stream(http: HttpClient) -> int:
    async with http, http.events(CHAT, {}) as events:
        return len([event async for event in events])


async def _info(protocol: WebSocketProtocol) -> object:
    try:
        return await protocol.rpc_info()
    finally:
        await protocol.aclose()


def test_a_silent_name_server_is_the_trouble_of_its_nodes_only(silent: SilentServer) -> None:
    """While the names of twelve nodes hang, a node with an address and one with a known name answer all the same."""
    names, known = Names(silent.look_up), Names(lambda host, port: [(*_LOOPBACK[:4], ("127.0.0.1", port))])

    async def main() -> None:
        hanging = await _hang(names, silent, 12)
        async with Provider(answer(), answer()) as provider:
            by_name = provider.url.replace("127.0.0.1", "a-node.test")
            for url, resolver in ((provider.url, names), (by_name, known)):
                async with asyncio.timeout(30):
                    spec = NodeSpec(url=url)
                    assert await _get(HttpClient(spec, resolver))
                    assert await _stream(HttpClient(spec, resolver)) > 2
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    with on_uvloop() as runner:
        runner.run(main())
    assert set(silent.asked.values()) == {1}


async def test_one_look_up_for_all_who_wait(silent: SilentServer) -> None:
    """A name is looked up once for all who wait for it; those who give up leave it to the others."""
    names = Names(silent.look_up)
    waiting = [asyncio.create_task(names.addresses("node.test", 80)) for _ in range(50)]
    while not silent.asked:
        await asyncio.sleep(0.001)
    for task in waiting[:49]:
        task.cancel()
    silent.end()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 49 + [socket.gaierror]
    assert silent.asked == {"node.test": 1}


async def test_addresses_are_remembered_and_errors_are_not() -> None:
    """Addresses that were found are not looked up again for a while; after an error, the next request looks it up."""
    results: list[Sequence[AddrInfoType] | OSError] = [socket.gaierror(socket.EAI_AGAIN, "try again"), [_LOOPBACK]]

    def look_up(host: str, port: int) -> Sequence[AddrInfoType]:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    names = Names(look_up)
    with pytest.raises(socket.gaierror):
        await names.addresses("node.test", 80)
    assert await names.addresses("node.test", 80) == [_LOOPBACK]
    assert await names.addresses("node.test", 80) == [_LOOPBACK]
    assert not results


async def test_a_name_that_hangs_is_a_connect_timeout(silent: SilentServer) -> None:
    """A request to a node whose name is not found in time fails with NodeLost, over each protocol."""
    names, spec = Names(silent.look_up), NodeSpec(url="http://node.test", connect_timeout=0.05)
    for request in (
        _get(HttpClient(spec, names)),
        _stream(HttpClient(spec, names)),
        _info(WebSocketProtocol(spec.url, connect_timeout=0.05, names=names)),
    ):
        with pytest.raises(NodeLost, match="timed out"):
            await request
    assert silent.asked == {"node.test": 1}


async def test_an_address_of_one_interface_only() -> None:
    """The connector of aiohttp gets the interface of a link-local address with it."""
    found: list[AddrInfoType] = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, 7)), _LOOPBACK]
    resolver = _Resolver(Names(lambda host, port: found))
    assert [one["host"] for one in await resolver.resolve("node.test", 80)] == ["fe80::1%7", "127.0.0.1"]
