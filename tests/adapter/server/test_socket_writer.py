"""Data written directly to a socket arrives as if the event loop's transport had sent it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import cast

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapter.server.socket_writer import SocketWriter

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
LARGE = 4 * 2**20
THEN = ["wait", "read", "continue"]


class Server(asyncio.Protocol):
    """Protocol that uses its writer as HttpProtocol does."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.paused = self.resumed = 0
        self.own: socket.socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.writer = SocketWriter(self.transport)

    def pause_writing(self) -> None:
        self.paused += 1
        self.writer.paused = True

    def resume_writing(self) -> None:
        self.resumed += 1
        self.writer.paused = False

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self.lost.wait()
            while self.own.fileno() >= 0:
                await asyncio.sleep(0)

    def connection_lost(self, error: Exception | None) -> None:
        self.writer.detach()
        self.lost.set()


async def connected() -> tuple[Server, socket.socket]:
    """Return a server and the client's socket."""
    accepted, client = socket.socketpair()
    accepted.setblocking(False)
    _, server = await asyncio.get_running_loop().connect_accepted_socket(Server, accepted)
    server.own = accepted
    return server, client


@pytest.mark.parametrize("make", LOOPS)
@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 250, 70_000, LARGE]), max_size=6))
def test_all_of_it_in_order(make: Callable[[], asyncio.AbstractEventLoop], sizes: list[int]) -> None:
    """Everything arrives in order, no matter how much of it the socket accepts at once."""
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def main() -> tuple[bytes, int]:
        server, client = await connected()
        for part in parts:
            server.writer.write(part)
        server.writer.close()
        server.writer.write(b"too late")
        with closing(client):
            received = await asyncio.to_thread(all_of, client)
            await server.ended()
        return received, server.paused

    with asyncio.Runner(loop_factory=make) as runner:
        received, paused = runner.run(main())
    assert received == b"".join(parts)
    assert paused or sum(sizes) < LARGE


@pytest.mark.parametrize("make", LOOPS)
@settings(max_examples=20, deadline=None)
@example(parts=[(LARGE, "read"), (1, "continue")])
@given(parts=st.lists(st.tuples(st.sampled_from([1, 250, 70_000, LARGE]), st.sampled_from(THEN)), max_size=8))
def test_pausing_and_resuming(make: Callable[[], asyncio.AbstractEventLoop], parts: list[tuple[int, str]]) -> None:
    """Direct writes and writes through the transport keep their order, whether the client has read everything since,
    has read some that the transport has not noticed, or nothing.
    """

    async def main() -> tuple[bytes, int, int]:
        server, client = await connected()
        received = b""
        for number, (size, then) in enumerate(parts):
            server.writer.write(bytes([number]) * size)
            while then != "continue" and server.writer.paused:
                with suppress(BlockingIOError):
                    received += client.recv(1 << 18, socket.MSG_DONTWAIT)
                if then == "read":
                    break
                await asyncio.sleep(0)
        server.writer.close()
        with closing(client):
            received += await asyncio.to_thread(all_of, client)
            await server.ended()
        return received, server.paused, server.resumed

    with asyncio.Runner(loop_factory=make) as runner:
        received, paused, resumed = runner.run(main())
    assert received == b"".join(bytes([number]) * size for number, (size, _) in enumerate(parts))
    # A socket never accepts a large part at once, so each one that is waited for ends in a resume.
    assert paused >= resumed >= sum(then == "wait" and size == LARGE for size, then in parts)


@pytest.mark.parametrize("make", LOOPS)
def test_no_gap(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Nothing follows a part of which a closing transport drops the rest."""

    async def main() -> bytes:
        server, client = await connected()
        server.transport.close()
        server.writer.write(b"x" * LARGE)
        with closing(client):
            received = bytearray(client.recv(LARGE))
            server.writer.write(b"end")
            received += await asyncio.to_thread(all_of, client)
            await server.ended()
        return bytes(received)

    with asyncio.Runner(loop_factory=make) as runner:
        received = runner.run(main())
    assert received == b"x" * len(received)
    assert len(received) < LARGE


def all_of(end: socket.socket) -> bytes:
    received = bytearray()
    while data := end.recv(65536):
        received += data
    return bytes(received)


@pytest.mark.parametrize("make", LOOPS)
def test_the_client_disconnected(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Writing to a disconnected client raises nothing, and the protocol's connection_lost is called."""

    async def main() -> None:
        server, client = await connected()
        client.close()
        while not server.lost.is_set():
            server.writer.write(b"x")
            await asyncio.sleep(0)
        await server.ended()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("make", LOOPS)
def test_a_reused_file_descriptor(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Data written after a disconnect does not reach the next client, which may have the same file descriptor."""

    async def main() -> None:
        server, client = await connected()
        number = server.transport.get_extra_info("socket").fileno()
        client.close()
        await server.ended()
        with ExitStack() as stack:
            ends = [stack.enter_context(end) for _ in range(8) for end in socket.socketpair()]
            assert number in [end.fileno() for end in ends]
            server.writer.write(b"x")
            for end in ends:
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())
