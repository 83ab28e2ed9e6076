"""TCP proxy between a gateway and a node that reads the traffic and can cause faults.

Everything here runs in the event loop of one thread, that of `Wires`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from subnet.errors import WireError
from subnet.wire import columns, frames
from subnet.wire.messages import Accepted, Deltas, Signed
from tests.faults.sockets import close, read_frame, reset, write_frame
from tests.faults.trap import Trap

Mangle = Callable[[bytes], bytes]


class Victim(Protocol):
    """The part of a node process that faults need."""

    port: int

    def send(self, number: int) -> None: ...

    def end(self) -> int: ...


class Proxy:
    """Proxy in front of `node`. `delay` delays each frame of tokens, `drip` each byte, in seconds.

    With `one_by_one` each delta is passed in its own frame, so that a trap can separate deltas of one step. `came`
    counts the tokens that the node sent, by choice.
    """

    def __init__(self, trap: Trap, node: Victim) -> None:
        self.trap = trap
        self.node = node
        self.address = ""
        self.delay = 0.0
        self.drip = 0.0
        self.one_by_one = False
        self.came: Counter[int] = Counter()
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
    """One connection through a proxy. When one end is closed or reset, so is the other."""

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
            first, payload = await read_frame(self._from_node)
            for part in single_rows(payload) if self.proxy.one_by_one else [payload]:
                await self._relay(first, part)

    async def _relay(self, first: int, payload: bytes) -> None:
        passed = self._count(payload)
        if passed is not None and self.proxy.delay:
            await self.proxy.pause(self.proxy.delay)
        if passed is not None and self.proxy.mangle is not None:
            payload, self.proxy.mangle = self.proxy.mangle(payload), None
        cut = self.to_gateway.is_closing()
        fault = None if passed is None or cut else self.proxy.trap.due(passed)
        await self._pass(write_frame(first, payload))
        if fault is not None:
            self.proxy.trap.spring(fault, self)

    async def _pass(self, data: bytes) -> None:
        await self.proxy.flowing.wait()
        while self.proxy.drip and data:
            self.to_gateway.write(data[:1])
            data = data[1:]
            await self.proxy.pause(self.proxy.drip)
        self.to_gateway.write(data)
        await self.to_gateway.drain()

    def _count(self, payload: bytes) -> int | None:
        """Return the number of tokens so far of the longest call in the frame; None if the frame is not about calls."""
        try:
            message = frames.decode(payload)
        except WireError:
            return None
        if isinstance(message, Accepted):
            return 0
        if isinstance(message, Signed):
            return 0 if frames.type_of(message.content) is Accepted else None
        if not isinstance(message, Deltas):
            return None
        rows = list(columns.unpack(message))
        for call, delta in rows:
            self._tokens[call] += len(delta.tokens)
            self.proxy.came[delta.choice] += len(delta.tokens)
        return max(self._tokens[call] for call, _ in rows)


def single_rows(payload: bytes) -> list[bytes]:
    """Return a frame for each delta of a frame of deltas; any other frame unchanged."""
    try:
        message = frames.decode(payload)
    except WireError:
        return [payload]
    if not isinstance(message, Deltas):
        return [payload]
    return [frames.encode(columns.pack([row])) for row in columns.unpack(message)]
