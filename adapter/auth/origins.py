"""Origins of web pages and apps that may call the gateway from a browser."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

ANY = "*"

# Schemes of pages that an installed app shows: no website has them. As at Ollama (envconfig/config.go), and Capacitor.
_APP_SCHEMES = frozenset({"app", "capacitor", "file", "ionic", "tauri", "vscode-file", "vscode-webview"})
_WEB_SCHEMES = {"http": 80, "https": 443}


class Origins:
    """Origins that may read responses in a browser: those `given`, and with `local` also those of this machine.

    A given origin may contain `*` for any part of a host or port, or be `*` for all. "null" is the origin of pages that
    have none, such as files and sandboxed frames: any website can make one.
    """

    def __init__(self, given: Iterable[str] = (), *, local: bool = False) -> None:
        names = [origin.lower().rstrip("/") for origin in given]
        self.any = ANY in names
        self._exact = frozenset(names)
        self._patterns = [re.compile(re.escape(name).replace(r"\*", "[^/]*")) for name in names if "*" in name]
        self._local = local

    def can_read(self, origin: str) -> bool:
        """Return whether pages of `origin` may read responses."""
        origin = origin.lower()
        if self.any or origin in self._exact or any(pattern.fullmatch(origin) for pattern in self._patterns):
            return True
        return self._local and is_local_origin(origin)

    def can_send(self, origin: str, host: str) -> bool:
        """Return whether a request from a page of `origin` to `host`, the Host header, may be served.

        Browsers send simple requests without asking first, and keep only the response from the page.
        """
        return self.can_read(origin) or is_local_origin(origin) or _is_same_host(origin, host)


def is_local_origin(origin: str) -> bool:
    """Return whether `origin` is that of an installed app, or of a page from a server on this machine."""
    url = _split(origin)
    if url.scheme in _APP_SCHEMES:
        return True
    return url.scheme in _WEB_SCHEMES and (is_local_host(url.hostname or "") or url.hostname == "0.0.0.0")


def is_local_host(name: str) -> bool:
    """Return whether `name`, without port and brackets, is this machine: localhost, or a loopback address."""
    name = name.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return False


def _is_same_host(origin: str, host: str) -> bool:
    # A proxy that terminates TLS changes the scheme, so that it does not count.
    url = _split(origin)
    port = _WEB_SCHEMES.get(url.scheme)
    return port is not None and url.netloc.removesuffix(f":{port}") == host.lower().removesuffix(f":{port}")


def _split(origin: str) -> SplitResult:
    """Return the parts of an origin; empty ones if it is invalid. Browsers send no user name in it."""
    try:
        return urlsplit("" if "@" in origin else origin.lower())
    except ValueError:
        return urlsplit("")
