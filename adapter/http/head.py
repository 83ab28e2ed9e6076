"""Status and headers of an answer as bytes."""

from __future__ import annotations

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Header = tuple[bytes, bytes]


def head(status: int, headers: Iterable[Header]) -> bytes:
    """Names in lower case, as ASGI wants them. Raises ValueError for a header that would be more than one line."""
    lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in headers]]
    data = b"".join(lines)
    if data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        raise ValueError("a header must not contain line breaks")
    return data + b"\r\n"
