"""Connecting to a host name, which may have several addresses."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from socket import SOCK_STREAM

from aiohappyeyeballs import AddrInfoType, start_connection

# Seconds for which addresses are remembered, so that a burst of requests looks a name up once.
_CACHE_TIME = 10.0
# Head start of an address before the next one is tried too, in seconds: RFC 8305, section 5.
_DELAY = 0.25


class Resolver:
    """Addresses of `host`, and connections to the first that accepts one."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._is_literal = _is_address(host)
        self._addresses: list[AddrInfoType] = []
        self._expires = 0.0

    async def connect(self, protocol: asyncio.Protocol, tls: ssl.SSLContext | None, server_name: str | None) -> None:
        """Connect `protocol`. Raises OSError, or UnicodeError for an invalid name."""
        loop = asyncio.get_running_loop()
        if self._is_literal:
            await loop.create_connection(lambda: protocol, self._host, self._port, ssl=tls, server_hostname=server_name)
            return
        addresses = await self._resolve(loop)
        sock = await start_connection(addresses, happy_eyeballs_delay=_DELAY, interleave=1, loop=loop)
        try:
            await loop.create_connection(lambda: protocol, sock=sock, ssl=tls, server_hostname=server_name)
        except BaseException:
            sock.close()
            raise

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[AddrInfoType]:
        if loop.time() >= self._expires:
            self._addresses[:] = await loop.getaddrinfo(self._host, self._port, type=SOCK_STREAM)
            self._expires = loop.time() + _CACHE_TIME
        return self._addresses


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
