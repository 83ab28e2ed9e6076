"""Addresses of host names."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from subnet import threads

LookUp = Callable[[str, int], Sequence[AddrInfoType]]
"""Returns the addresses of a host and port, as socket.getaddrinfo does. Blocks, and raises OSError or UnicodeError."""

# Seconds for which addresses are remembered, so that a burst of requests looks a name up once.
_CACHE_TIME = 10.0
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def _look_up(host: str, port: int) -> Sequence[AddrInfoType]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Names:
    """Addresses of host names, which `look_up` finds; shared by all event loops of the process.

    While a name is looked up, all who need it wait for that one look-up, in a thread of its own: a name server that
    does not answer holds up nobody else, and there are never more threads than names.
    """

    def __init__(self, look_up: LookUp = _look_up) -> None:
        self._look_up = look_up
        self._running: dict[tuple[str, int], Future[list[AddrInfoType]]] = {}
        self._known: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}

    async def addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Return the addresses of a host. Raises OSError, or UnicodeError for an invalid name."""
        key = (host, port)
        expires, found = self._known.get(key, (0.0, []))
        if monotonic() < expires:
            return list(found)
        running = self._running.get(key)
        if running is None or running.done():
            running = self._running[key] = self._start(key)
        found = await asyncio.wrap_future(running)
        return list(found)

    def _start(self, key: tuple[str, int]) -> Future[list[AddrInfoType]]:
        try:
            return threads.start(f"look up {key[0]}", partial(self._find, key))
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def _find(self, key: tuple[str, int]) -> list[AddrInfoType]:
        found = list(self._look_up(*key))
        self._known[key] = (monotonic() + _CACHE_TIME, found)
        return found


SYSTEM_NAMES = Names()
"""Names as the operating system resolves them."""


def tcp_connector(names: Names, **options: Any) -> aiohttp.TCPConnector:
    """Return a connector of aiohttp's client that takes addresses from `names`, without a limit of connections."""
    return aiohttp.TCPConnector(limit=0, resolver=_Resolver(names), use_dns_cache=False, **options)


class _Resolver(AbstractResolver):
    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=_host(sockaddr), port=port, family=family, proto=proto, flags=_NUMERIC)
            for family, _, proto, _, sockaddr in await self._names.addresses(host, port)
        ]

    async def close(self) -> None:
        return


def _host(sockaddr: tuple[Any, ...]) -> str:
    """Return the address, with the interface if it is valid on that one only."""
    host: str = sockaddr[0]
    scope = sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host
