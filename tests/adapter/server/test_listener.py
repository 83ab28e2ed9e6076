"""Connections are accepted while the event loop is busy."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import pytest
import uvloop

from adapter.server.listener import Listener


class Greeting(asyncio.Protocol):
    """Sends a greeting and closes; `seen` records both ends of the connection."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._seen.append("made")
        # uvloop's transports are not of asyncio's classes.
        connection = cast(asyncio.WriteTransport, transport)
        connection.write(b"hello")
        connection.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._seen.append("lost")


@contextmanager
def listening() -> Iterator[tuple[Listener, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        yield Listener(sock), sock.getsockname()


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def test_many_at_once() -> None:
    """All connections that arrived during a long loop iteration are accepted in the next one."""

    async def main() -> None:
        seen = list[str]()
        with listening() as (listener, address), ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection(address))
            listener.start(lambda: Greeting(seen))
            for _ in range(10):
                await asyncio.sleep(0)
            assert seen.count("made") == 100
            await settled(lambda: seen.count("lost") == 100)
            listener.stop()

    uvloop.run(main())


async def test_stop() -> None:
    """A stopped listener refuses connections."""
    with listening() as (listener, address):
        listener.start(lambda: Greeting([]))
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        listener.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def test_out_of_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """A process without free file descriptors logs one error, and accepts waiting connections once it has some."""
    with listening() as (listener, address), socket.create_connection(address) as client:
        client.setblocking(False)
        with no_more_files():
            listener.start(lambda: Greeting([]))
            await settled(lambda: caplog.messages)
            for _ in range(10):
                await asyncio.sleep(0)
        assert len(caplog.messages) == 1
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(client, 10) == b"hello"
        listener.stop()


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
