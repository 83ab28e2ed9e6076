"""Check of what HTTP requires of a request's head and the parser does not."""

from __future__ import annotations

import re

from adapter.errors import InvalidHttp, UnsupportedTransferCoding
from adapter.server.asgi import Scope

# Characters of a host and port (RFC 3986, section 3.2.2); empty if the URL has none.
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")


def check_head(scope: Scope) -> None:
    """Raise InvalidHttp for a missing, repeated or invalid Host header, and UnsupportedTransferCoding for a body that
    is encoded in another way than in chunks.
    """
    headers, version = scope["headers"], scope["http_version"]
    _check_host([value for name, value in headers if name == b"host"], version)
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        _check_transfer_coding(b",".join(codings), version)


def _check_host(hosts: list[bytes], version: str) -> None:
    """Check the Host headers by RFC 9112, section 3.2. HTTP/1.0 needs none."""
    if len(hosts) > 1 or (not hosts and version >= "1.1"):
        raise InvalidHttp(f"Invalid HTTP request: expected one Host header, but got {len(hosts)}.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise InvalidHttp("Invalid HTTP request: the Host header is not a host name or address.")


def _check_transfer_coding(codings: bytes, version: str) -> None:
    """Check the Transfer-Encoding header by RFC 9112, section 6.1. HTTP/1.0 has none."""
    if version < "1.1":
        raise InvalidHttp("Invalid HTTP request: HTTP/1.0 has no Transfer-Encoding header.")
    # The parser rejects codings that do not end with chunks.
    if any(coding.strip().lower() not in (b"", b"chunked") for coding in codings.split(b",")):
        raise UnsupportedTransferCoding("Unsupported Transfer-Encoding header: only 'chunked' is supported.")
