"""A node: one engine, offered to any number of connections."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from subnet.authorizers import AuthorizerBase
from subnet.engines.base import Engine
from subnet.errors import NodeBusy, NodeLeaving
from subnet.node.connection import NodeConnection
from subnet.node_info import NodeInfo
from subnet.version import VERSION
from subnet.wire import frames

logger = logging.getLogger(__name__)

# Seconds of silence after which a gateway is asked for a sign of life, for which it has half as long. One that is busy
# reads what thousands of streams sent it before it hears that.
_HEARTBEAT = 30.0


class Node:
    """Offers `engine`, which the caller has entered. Refuses work beyond its capacity with NodeBusy."""

    def __init__(self, engine: Engine, authorizer: AuthorizerBase | None = None) -> None:
        self.engine = engine
        self.authorizer = authorizer
        self.running = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._connections: set[NodeConnection] = set()
        self._id = f"node-{secrets.token_hex(4)}"

    def info(self) -> NodeInfo:
        engine = self.engine
        return NodeInfo(
            node_id=self._id,
            version=VERSION,
            engine=engine.name,
            cards=(engine.card,),
            capabilities=engine.capabilities,
            capacity=engine.capacity,
            running=self.running,
            process=os.getpid(),
            draining=self.draining,
        )

    @asynccontextmanager
    async def slots(self, wanted: int) -> AsyncIterator[None]:
        """Hold `wanted` of the engine's slots. Raises NodeBusy, NodeLeaving."""
        if self.draining:
            raise NodeLeaving("the node is shutting down")
        if self.running + wanted > self.engine.capacity:
            raise NodeBusy(
                f"{self.running} of {self.engine.capacity} slots are in use, and the request needs {wanted}",
                retry_after=0.2,
            )
        self.running += wanted
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= wanted
            if not self.running:
                self._idle.set()

    async def drain(self, grace: float) -> None:
        """Take no new work, let what runs finish for `grace` seconds, and hand the rest over to other nodes."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        await asyncio.gather(*(connection.hand_over() for connection in self._connections))

    def app(self) -> web.Application:
        """The node as an aiohttp application: the wire under /subnet, and /healthz."""
        app = web.Application()
        app.add_routes([web.get("/subnet", self._subnet), web.get("/healthz", self._healthz)])
        return app

    async def _subnet(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=frames.MAX_FRAME, heartbeat=_HEARTBEAT, timeout=1.0, compress=False)
        await socket.prepare(request)
        logger.info("gateway %s connected", request.remote)
        async with NodeConnection(self, socket) as connection:
            self._connections.add(connection)
            try:
                await connection.serve()
            finally:
                self._connections.discard(connection)
        logger.info("gateway %s disconnected", request.remote)
        return socket

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": self.engine.card.id, "running": self.running})
