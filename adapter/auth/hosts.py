"""Host names under which a gateway may be called: the protection from DNS rebinding.

A website can let its own name resolve to 127.0.0.1. To the browser its pages and the gateway then have the same origin,
so that they can read responses; but requests still have the website's name in the Host header.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from adapter.auth.origins import ANY, is_local_host


class Hosts:
    """Host names that are `allowed`, besides those of this machine; `*` allows all."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)

    def allows(self, host: str) -> bool:
        """Return whether `host`, the Host header, is allowed. "" is, as browsers always send one."""
        if not host or ANY in self._allowed:
            return True
        name = host_name(host)
        return name in self._allowed or is_local_host(name)


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case, without port and brackets; "" if it is invalid."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
