"""Reading requests and writing answers, the same for all endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request
from litestar.response.base import ASGIResponse

from adapter.errors import BodyTooLarge, BodyTooSlow, ClientGone

AnyRequest = Request[Any, Any, Any]

# A client that is still sending would not read a refusal: what it sends is thrown away, up to so many times the limit.
_PATIENCE = 16

SILENCE = 60.0
"""Seconds without a byte of a body that is still to come."""


async def read_body(request: AnyRequest, limit: int, *, silence: float = SILENCE) -> bytes:
    """Whatever its content type. Raises BodyTooLarge for more than `limit` bytes, at once where the client says how
    many there are, BodyTooSlow after `silence`, and ClientGone.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    more = True
    while more and size <= limit * _PATIENCE:
        message = await _next(request, silence)
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size <= limit:
            parts.append(message.get("body", b""))
        else:
            parts.clear()
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


async def _next(request: AnyRequest, silence: float) -> Any:
    try:
        async with asyncio.timeout(silence):
            message = await request.receive()
    except TimeoutError as error:
        raise BodyTooSlow(f"Nothing more of the request came for {silence:.0f} seconds.") from error
    if message["type"] == "http.disconnect":
        raise ClientGone("the client closed the connection")
    return message


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request is larger than the {limit} bytes that are taken here.")


def json_answer(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    return ASGIResponse(
        body=msgspec.json.encode(content),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )
