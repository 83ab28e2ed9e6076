"""Host names under which a gateway may be called: the protection from DNS rebinding.

A website can let its own name resolve to 127.0.0.1. To the browser its pages and the gateway then have the same origin,
so that they can read responses; but requests still have the website's name in the Host header.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from adapter.auth.origins import ANY, is_local_host

# Of names in the DNS, and a port.
_MAX_HOST = 253 + 6


class Hosts:
    """Host names that are `allowed`, besides those of this machine; `*` allows all."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        # Clients of a gateway use few names, and parsing one costs more than all other checks of a request.
        self._allows = lru_cache(maxsize=64)(self._allows_name)

    def allows(self, host: str) -> bool:
        """Return whether `host`, the Host header, is allowed. "" is, as browsers always send one."""
        if not host or ANY in self._allowed:
            return True
        return len(host) <= _MAX_HOST and self._allows(host)

    def _allows_name(self, host: str) -> bool:
        name = host_name(host)
        return name in self._allowed or is_local_host(name)


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case, without port and brackets; "" if it is invalid."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""
