"""Node that serves one engine to any number of gateways."""

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
from subnet.node.node_connection import NodeConnection
from subnet.node_info import NodeInfo
from subnet.version import VERSION
from subnet.wire import frames

logger = logging.getLogger(__name__)

# Seconds between pings to a gateway, which has half as long to reply. A busy gateway reads the data of thousands of
# streams before it reads the ping.
_PING_INTERVAL = 30.0


class Node:
    """Serves `engine`, which the caller has entered. Rejects requests beyond its capacity with NodeBusy.

    `id` identifies this node, until it restarts.
    """

    def __init__(self, engine: Engine, authorizer: AuthorizerBase | None = None) -> None:
        self.engine = engine
        self.authorizer = authorizer
        self.running = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._connections: set[NodeConnection] = set()
        # Not to be guessed and never used again: requests are signed for it.
        self.id = f"node-{secrets.token_hex(16)}"

    def info(self) -> NodeInfo:
        """Return the node's current description."""
        engine = self.engine
        return NodeInfo(
            node_id=self.id,
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
    async def slots(self, count: int) -> AsyncIterator[None]:
        """Reserve `count` of the engine's slots inside the block.

        Raises NodeBusy if fewer are free, and NodeLeaving while the node is draining.
        """
        if self.draining:
            raise NodeLeaving("the node is shutting down")
        if self.running + count > self.engine.capacity:
            raise NodeBusy(
                f"{self.running} of {self.engine.capacity} slots are in use, and the request needs {count}",
                retry_after=0.2,
            )
        self.running += count
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= count
            if not self.running:
                self._idle.set()

    async def drain(self, grace: float) -> None:
        """Reject new requests, let running ones finish for up to `grace` seconds, then fail the rest.

        Gateways continue the failed requests on other nodes.
        """
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        await asyncio.gather(*(connection.abort() for connection in self._connections))

    def app(self) -> web.Application:
        """Return an aiohttp application with the WebSocket endpoint /subnet and the health endpoint /healthz."""
        app = web.Application()
        app.add_routes([web.get("/subnet", self._handle_gateway), web.get("/healthz", self._handle_healthz)])
        return app

    async def _handle_gateway(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=frames.MAX_FRAME, heartbeat=_PING_INTERVAL, timeout=1.0, compress=False
        )
        try:
            await socket.prepare(request)
        except ConnectionError:
            return web.Response()  # Goes nowhere: the gateway has left during the handshake.
        logger.info("gateway %s connected", request.remote)
        async with NodeConnection(self, socket) as connection:
            self._connections.add(connection)
            try:
                await connection.serve()
            finally:
                self._connections.discard(connection)
        logger.info("gateway %s disconnected", request.remote)
        return socket

    async def _handle_healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": self.engine.card.id, "running": self.running})
