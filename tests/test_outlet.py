"""What is written past the event loop's transport arrives as if it were not."""

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

from adapter.server.response_writer import Outlet

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
LARGE = 4 * 2**20
THEN = ["wait", "read", "go on"]


class Server(asyncio.Protocol):
    """As HttpProtocol has its outlet."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.paused = self.resumed = 0
        self.own: socket.socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.outlet = Outlet(self.transport)

    def pause_writing(self) -> None:
        self.paused += 1
        self.outlet.full = True

    def resume_writing(self) -> None:
        self.resumed += 1
        self.outlet.full = False

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self.lost.wait()
            while self.own.fileno() >= 0:
                await asyncio.sleep(0)

    def connection_lost(self, error: Exception | None) -> None:
        self.outlet.lost()
        self.lost.set()


async def connected() -> tuple[Server, socket.socket]:
    """A server, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    _, server = await asyncio.get_running_loop().connect_accepted_socket(Server, ours)
    server.own = ours
    return server, theirs


@pytest.mark.parametrize("make", LOOPS)
@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 250, 70_000, LARGE]), max_size=6))
def test_all_of_it_in_order(make: Callable[[], asyncio.AbstractEventLoop], sizes: list[int]) -> None:
    """However much is written before the other end reads, and whether the socket takes it at once or not."""
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def main() -> tuple[bytes, int]:
        server, theirs = await connected()
        for part in parts:
            server.outlet.write(part)
        server.outlet.close()
        server.outlet.write(b"too late")
        with closing(theirs):
            said = await asyncio.to_thread(all_of, theirs)
            await server.ended()
        return said, server.paused

    with asyncio.Runner(loop_factory=make) as runner:
        said, paused = runner.run(main())
    assert said == b"".join(parts)
    assert paused or sum(sizes) < LARGE


@pytest.mark.parametrize("make", LOOPS)
@settings(max_examples=20, deadline=None)
@example(parts=[(LARGE, "read"), (1, "go on")])
@given(parts=st.lists(st.tuples(st.sampled_from([1, 250, 70_000, LARGE]), st.sampled_from(THEN)), max_size=8))
def test_full_and_free_by_turns(make: Callable[[], asyncio.AbstractEventLoop], parts: list[tuple[int, str]]) -> None:
    """After each part the other end reads until there is room again, or some of it, of which the transport does not
    know yet, or nothing: what is written past the transport follows what went through it, and the other way.
    """

    async def main() -> tuple[bytes, int, int]:
        server, theirs = await connected()
        said = b""
        for number, (size, then) in enumerate(parts):
            server.outlet.write(bytes([number]) * size)
            while then != "go on" and server.outlet.full:
                with suppress(BlockingIOError):
                    said += theirs.recv(1 << 18, socket.MSG_DONTWAIT)
                if then == "read":
                    break
                await asyncio.sleep(0)
        server.outlet.close()
        with closing(theirs):
            said += await asyncio.to_thread(all_of, theirs)
            await server.ended()
        return said, server.paused, server.resumed

    with asyncio.Runner(loop_factory=make) as runner:
        said, paused, resumed = runner.run(main())
    assert said == b"".join(bytes([number]) * size for number, (size, _) in enumerate(parts))
    # No socket takes a large part at once: after each that is waited for, there is room again.
    assert paused >= resumed >= sum(then == "wait" and size == LARGE for size, then in parts)


@pytest.mark.parametrize("make", LOOPS)
def test_no_hole(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A transport that closes on its own takes no rest of what the socket took a part of: nothing follows that part."""

    async def main() -> bytes:
        server, theirs = await connected()
        server.transport.close()
        server.outlet.write(b"x" * LARGE)
        with closing(theirs):
            said = bytearray(theirs.recv(LARGE))
            server.outlet.write(b"end")
            said += await asyncio.to_thread(all_of, theirs)
            await server.ended()
        return bytes(said)

    with asyncio.Runner(loop_factory=make) as runner:
        said = runner.run(main())
    assert said == b"x" * len(said)
    assert len(said) < LARGE


def all_of(end: socket.socket) -> bytes:
    said = bytearray()
    while data := end.recv(65536):
        said += data
    return bytes(said)


@pytest.mark.parametrize("make", LOOPS)
def test_who_went_away(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Writing to who is gone raises nothing; the protocol hears of it."""

    async def main() -> None:
        server, theirs = await connected()
        theirs.close()
        while not server.lost.is_set():
            server.outlet.write(b"x")
            await asyncio.sleep(0)
        await server.ended()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("make", LOOPS)
def test_another_socket_of_the_same_number(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """What comes too late for one client does not reach the next, who has the number of the closed socket."""

    async def main() -> None:
        server, theirs = await connected()
        number = server.transport.get_extra_info("socket").fileno()
        theirs.close()
        await server.ended()
        with ExitStack() as stack:
            ends = [stack.enter_context(end) for _ in range(8) for end in socket.socketpair()]
            assert number in [end.fileno() for end in ends]
            server.outlet.write(b"x")
            for end in ends:
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())
