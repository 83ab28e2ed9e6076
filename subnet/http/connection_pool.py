"""Connections to one server: opened when needed, and kept for further requests where that is safe."""

from __future__ import annotations

import asyncio
import re
import ssl
from functools import lru_cache
from urllib.parse import SplitResult

from subnet.errors import ResponseLost
from subnet.http.bodies import connect_error
from subnet.http.connection import Connection, OnHead
from subnet.http.lookup import Names
from subnet.http.resolver import Resolver
from subnet.http.response_parser import ResponseHead

# Seconds for which a connection is kept that the server says nothing about. uvicorn and Node.js close theirs after 5.
_IDLE_TIMEOUT = 4.0
# Longest time for which any is kept, and how much earlier than the server it is closed. In seconds.
_MAX_IDLE_TIMEOUT = 15.0
_MARGIN = 1.0
_KEEP_ALIVE = re.compile(r"(?:^|[,;\s])timeout=(\d{1,6})(?![\d.])", re.IGNORECASE)


class ConnectionPool:
    """Connections to the server `peer` at `address`. Only connecting has a timeout, in seconds.

    `tls` is for addresses with https. With `reuse`, a connection is kept until shortly before the server's idle
    timeout. It may be closed nevertheless when the next request is on its way: a request that is lost before a byte of
    its response is sent once more, on a new connection.
    """

    def __init__(
        self,
        peer: str,
        address: SplitResult,
        tls: ssl.SSLContext | None,
        connect_timeout: float,
        names: Names,
        *,
        reuse: bool,
    ) -> None:
        self._peer = peer
        self._tls = (tls or default_tls()) if address.scheme == "https" else None
        # A name may end with a dot, but a certificate's does not.
        self._server_name = (address.hostname or "").rstrip(".") if self._tls is not None else None
        port = address.port or (80 if self._tls is None else 443)
        self._resolver = Resolver(address.hostname or "", port, names)
        self._connect_timeout = connect_timeout
        self._reuse = reuse
        self._open: set[Connection] = set()
        # With the time at which each must be closed, in the order in which they became idle.
        self._idle: dict[Connection, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Close all connections. Safe to call twice; a further request opens new ones."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    async def exchange(self, request: bytes, on_head: OnHead) -> ResponseHead:
        """Send a request on an idle connection or a new one, see Connection.exchange.

        Also raises NodeLost if no connection can be made.
        """
        if (idle := self._take_idle()) is not None:
            try:
                return await idle.exchange(request, on_head)
            except ResponseLost:
                if not idle.unanswered:
                    raise
        connection = await self._connect()
        return await connection.exchange(request, on_head)

    async def _connect(self) -> Connection:
        connection = Connection(self._peer, self._keep, self._forget)
        self._open.add(connection)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._resolver.connect(connection, self._tls, self._server_name)
        except BaseException as error:
            # It may have been made at the same time as the timeout ended.
            connection.abort()
            self._forget(connection)
            if isinstance(error, OSError | UnicodeError):
                raise connect_error(self._peer, error) from error
            raise
        return connection

    def _take_idle(self) -> Connection | None:
        """Return the connection that became idle last, if it may still be used."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, expires = self._idle.popitem()
            if now < expires and not connection.closed:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: Connection, head: ResponseHead) -> None:
        seconds = idle_timeout(head.headers.get("keep-alive", "")) if self._reuse else 0.0
        if not seconds:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.time() + seconds
        if self._sweeper is None:
            self._sweeper = loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close the connections that were idle for too long."""
        loop, self._sweeper = asyncio.get_running_loop(), None
        now = loop.time()
        for connection in [connection for connection, expires in self._idle.items() if expires <= now]:
            del self._idle[connection]
            connection.abort()
        if self._idle:
            self._sweeper = loop.call_later(min(self._idle.values()) - now, self._sweep)

    def _forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._open.discard(connection)


@lru_cache(maxsize=1)
def default_tls() -> ssl.SSLContext:
    """Return the context that trusts the system's certificates. It takes milliseconds to load them."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def idle_timeout(keep_alive: str) -> float:
    """Return the seconds for which to keep a connection whose last response had this `keep-alive`; 0 for not at all."""
    match = _KEEP_ALIVE.search(keep_alive)
    if match is None:
        return _IDLE_TIMEOUT
    return min(max(0.0, int(match[1]) - _MARGIN), _MAX_IDLE_TIMEOUT)
