"""Connecting to a host name, which may have several addresses."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address

from aiohappyeyeballs import start_connection

from subnet.http.lookup import Names

# Head start of an address before the next one is tried too, in seconds: RFC 8305, section 5.
_DELAY = 0.25


class Resolver:
    """Connections to the first address of `host` that accepts one; `names` has the addresses, unless it is one."""

    def __init__(self, host: str, port: int, names: Names) -> None:
        self._host = host
        self._port = port
        self._names = names
        self._is_literal = _is_address(host)

    async def connect(self, protocol: asyncio.Protocol, tls: ssl.SSLContext | None, server_name: str | None) -> None:
        """Connect `protocol`. Raises OSError, or UnicodeError for an invalid name."""
        loop = asyncio.get_running_loop()
        if self._is_literal:
            await loop.create_connection(lambda: protocol, self._host, self._port, ssl=tls, server_hostname=server_name)
            return
        addresses = await self._names.addresses(self._host, self._port)
        sock = await start_connection(addresses, happy_eyeballs_delay=_DELAY, interleave=1, loop=loop)
        try:
            await loop.create_connection(lambda: protocol, sock=sock, ssl=tls, server_hostname=server_name)
        except BaseException:
            sock.close()
            raise


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
