"""What stands between a gateway and a node, and can fail them: a TCP proxy that reads along.

Everything here runs on the loop of one thread, that of `Wires`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Protocol, TypeVar

from subnet import columns, frames
from subnet.errors import WireError
from subnet.messages import Accepted, Deltas

T = TypeVar("T")
Mangle = Callable[[bytes], bytes]
_RESET = struct.pack("ii", 1, 0)


class Trap:
    """Faults, each of which happens once, in turn: as soon as so many tokens of one call have passed any proxy.

    A switch of nodes is a new call, which counts from 0 again.
    """

    def __init__(self) -> None:
        self.sprung = 0
        self._planned: deque[tuple[int, Fault]] = deque()

    def set(self, *planned: tuple[int, Fault]) -> None:
        self.sprung = 0
        self._planned = deque(planned)

    def passed(self, link: Link, tokens: int) -> None:
        if self._planned and tokens >= self._planned[0][0]:
            _, fault = self._planned.popleft()
            fault(link)
            self.sprung += 1


class Victim(Protocol):
    """A node process, as far as a fault needs it."""

    port: int

    def send(self, number: int) -> None: ...

    def end(self) -> int: ...


class Proxy:
    """In front of `node`. `delay` holds up each frame of tokens, `drip` each byte, in seconds."""

    def __init__(self, trap: Trap, node: Victim) -> None:
        self.trap = trap
        self.node = node
        self.address = ""
        self.delay = 0.0
        self.drip = 0.0
        self.mangle: Mangle | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._healed = asyncio.Event()
        self.links: set[Link] = set()

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def heal(self) -> None:
        self.delay = self.drip = 0.0
        self.mangle = None
        self.flowing.set()
        self._healed.set()
        self._healed.clear()

    async def pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._healed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            node = await asyncio.open_connection("127.0.0.1", self.node.port)
        except OSError:
            reset(writer)
            return
        link = Link(self, (reader, writer), node)
        self.links.add(link)
        await link.run()
        self.links.discard(link)


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through a proxy. Each end is closed, or reset, as the other was."""

    def __init__(self, proxy: Proxy, gateway: Ends, node: Ends) -> None:
        self.proxy = proxy
        self._from_gateway, self.to_gateway = gateway
        self._from_node, self.to_node = node
        self._tokens: Counter[int] = Counter()

    async def run(self) -> None:
        pumps = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        results = await asyncio.gather(*pumps, return_exceptions=True)
        self.cut(reset if any(isinstance(result, ConnectionError) for result in results) else close)

    def cut(self, how: Callable[[asyncio.StreamWriter], None]) -> None:
        how(self.to_gateway)
        how(self.to_node)

    async def _up(self) -> None:
        while data := await self._from_gateway.read(65536):
            await self.proxy.flowing.wait()
            self.to_node.write(data)
            await self.to_node.drain()

    async def _down(self) -> None:
        await self._pass(await self._from_node.readuntil(b"\r\n\r\n"))
        while True:
            head, payload = await read_frame(self._from_node)
            passed = self._count(payload)
            if passed is not None and self.proxy.delay:
                await self.proxy.pause(self.proxy.delay)
            if passed is not None and self.proxy.mangle is not None:
                payload, self.proxy.mangle = self.proxy.mangle(payload), None
            await self._pass(head + payload)
            if passed is not None:
                self.proxy.trap.passed(self, passed)

    async def _pass(self, data: bytes) -> None:
        await self.proxy.flowing.wait()
        while self.proxy.drip and data:
            self.to_gateway.write(data[:1])
            data = data[1:]
            await self.proxy.pause(self.proxy.drip)
        self.to_gateway.write(data)
        await self.to_gateway.drain()

    def _count(self, payload: bytes) -> int | None:
        """How many tokens the longest call that the frame belongs to has now; None: it is about something else."""
        try:
            message = frames.decode(payload)
        except WireError:
            return None
        if isinstance(message, Accepted):
            return 0
        if not isinstance(message, Deltas):
            return None
        rows = list(columns.unpack(message))
        for call, delta in rows:
            self._tokens[call] += len(delta.tokens)
        return max(self._tokens[call] for call, _ in rows)


Fault = Callable[[Link], None]


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One WebSocket frame that a server sent: its header and its payload."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size > 125:
        wide = await reader.readexactly(2 if size == 126 else 8)
        head, size = head + wide, int.from_bytes(wide, "big")
    return head, await reader.readexactly(size)


def close(writer: asyncio.StreamWriter) -> None:
    """With FIN."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """With RST: what a peer that knows nothing of a connection answers."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Wires:
    """A thread with the loop that proxies live on."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[tuple[Proxy, asyncio.Server]] = []

    def proxy(self, trap: Trap, node: Victim) -> Proxy:
        proxy = Proxy(trap, node)
        self._opened.append((proxy, self._call(proxy.open())))
        return proxy

    def heal(self) -> None:
        for proxy, _ in self._opened:
            self._call(proxy.heal())

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for proxy, server in self._opened:
            server.close()
            for link in list(proxy.links):
                link.cut(reset)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _call(self, coroutine: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
