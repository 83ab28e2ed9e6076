"""Encoding of HTTP/1.1 requests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, urlsplit


@lru_cache(maxsize=64)
def request_target(url: str) -> tuple[str, str]:
    """Return the value of `host` for a URL, and its path. Raises UnicodeError for an invalid host name."""
    address = urlsplit(url)
    host = (address.hostname or "").encode("idna").decode()
    if ":" in host:
        host = f"[{host}]"
    default = 443 if address.scheme == "https" else 80
    port = "" if address.port in (None, default) else f":{address.port}"
    return host + port, quote(address.path or "/", safe="/%:@!$&'()*+,;=~-._")


def encode_post(url: str, headers: Mapping[str, str], body: bytes, *, keep_alive: bool) -> bytes:
    """Return the bytes of a POST to `url`. `headers` have names in lower case, and are valid."""
    host, path = request_target(url)
    fields = {
        "host": host,
        **headers,
        "content-length": str(len(body)),
        "connection": "keep-alive" if keep_alive else "close",
    }
    fields.pop("transfer-encoding", None)
    lines = [f"POST {path} HTTP/1.1\r\n", *[f"{name}: {value}\r\n" for name, value in fields.items()], "\r\n"]
    return "".join(lines).encode("latin-1") + body
