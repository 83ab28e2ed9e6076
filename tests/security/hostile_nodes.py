"""Nodes that can flood their gateways with frames, in one process: `python -m tests.security.hostile_nodes`.

There is one for each kind of flood, an honest node with an echo engine until a line on standard input names its kind.
The process prints their addresses, in the order of FLOODS, and ends with standard input.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from subnet.engines.echo import EchoEngine
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.tensors import Tensor
from subnet.wire import frames
from subnet.wire.messages import Deltas, EmbedReply
from tests.faults.sockets import write_frame

_BINARY, _PING = 0x82, 0x89
# Keeps the kernel's buffer full without filling this process's memory.
_MAX_BUFFERED = 1 << 20


def _rows(count: int) -> bytes:
    """Encode rows without tokens of a call that was open once, past the limits of a sender."""
    columns = Deltas(b"\1\0\0\0" * count, bytes(2 * count), bytes(2 * count), b"", bytes(count))
    return bytes((frames.VERSION, 7)) + msgspec.msgpack.encode(columns)


def _reply(**members: object) -> bytes:
    return bytes((frames.VERSION, 11)) + msgspec.msgpack.encode({"call": 1, **members})


FLOODS: dict[str, Callable[[], bytes]] = {
    # As in the report of a stream that stood still for ten seconds.
    "millions-of-rows": lambda: write_frame(_BINARY, _rows(2_900_000)),
    "rows": lambda: write_frame(_BINARY, _rows(4096)),
    "pings": lambda: write_frame(_PING, b"x" * 100) * 1000,
    "replies": lambda: write_frame(_BINARY, frames.encode(EmbedReply(1, Tensor("float32", (1, 1), bytes(1 << 24))))),
    "unknown-members": lambda: write_frame(_BINARY, _reply(more=[0] * 30_000_000)),
}
"""Bytes that are sent again and again, by kind."""

QUIET = "quiet"
"""Line that ends a flood."""


class HostileNode(Node):
    """Node that can write to its gateways past its own protocol."""

    def __init__(self, engine: EchoEngine) -> None:
        super().__init__(engine)
        self._gateways: set[asyncio.Transport] = set()

    def app(self) -> web.Application:
        application = super().app()
        application.middlewares.append(self._remember)
        return application

    @web.middleware
    async def _remember(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert isinstance(request.transport, asyncio.Transport)
        self._gateways.add(request.transport)
        try:
            return await handler(request)
        finally:
            self._gateways.discard(request.transport)

    async def flood(self, data: bytes) -> None:
        """Send `data` again and again, as fast as the gateways read, until cancelled."""
        while True:
            for transport in list(self._gateways):
                if not transport.is_closing() and transport.get_write_buffer_size() < _MAX_BUFFERED:
                    transport.write(data)
            await asyncio.sleep(0.001)


async def serve() -> None:
    """Run the nodes until standard input ends."""
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        nodes, addresses = {}, []
        for kind in FLOODS:
            engine = await stack.enter_async_context(EchoEngine(f"hostile-{kind}"))
            nodes[kind] = HostileNode(engine)
            addresses.append(await stack.enter_async_context(listening(nodes[kind], "127.0.0.1", 0)))
        print(f"serving floods on {','.join(addresses)}", flush=True)
        flooding: asyncio.Task[None] | None = None
        while kind := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if flooding is not None:
                flooding.cancel()
            if kind != QUIET:
                flooding = tasks.create_task(nodes[kind].flood(FLOODS[kind]()))
        if flooding is not None:
            flooding.cancel()


if __name__ == "__main__":
    asyncio.run(serve())
