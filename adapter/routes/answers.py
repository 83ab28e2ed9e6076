"""Reading requests and writing answers, the same for all endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request
from litestar.response.base import ASGIResponse

from adapter.errors import BodyTooLarge, ClientGone

AnyRequest = Request[Any, Any, Any]

# A client that is still sending would not read a refusal: what it sends is thrown away, up to so many times the limit.
_PATIENCE = 16


async def read_body(request: AnyRequest, limit: int) -> bytes:
    """Whatever its content type. Raises BodyTooLarge for more than `limit` bytes, and ClientGone."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more and size <= limit * _PATIENCE:
        message: Any = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size <= limit:
            parts.append(message.get("body", b""))
        else:
            parts.clear()
    if size > limit:
        raise BodyTooLarge(f"The request is larger than the {limit} bytes that are taken here.")
    return b"".join(parts)


def json_answer(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    return ASGIResponse(
        body=msgspec.json.encode(content),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )
