"""Reading requests and writing answers, the same for all endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from adapter.api.common.http_request import Request
from adapter.api.common.readers import Reader
from adapter.config import Settings
from adapter.errors import BodyTooLarge, BodyTooSlow, ClientDisconnected, to_http_error
from adapter.generation.prepare import GenerationSettings
from adapter.offload import offload_if_large
from adapter.server.asgi import Message, Receive
from adapter.server.responses import Response

R = TypeVar("R", bound=msgspec.Struct)

# A client that is still sending would not read a refusal: what it sends is thrown away, up to so many times the limit.
_PATIENCE = 16

SILENCE = 60.0
"""Seconds without a byte of a body that is still to come."""


async def read_body(request: Request, limit: int, *, silence: float = SILENCE) -> bytes:
    """Whatever its content type. Raises BodyTooLarge for more than `limit` bytes, at once where the client says how
    many there are, BodyTooSlow after `silence`, and ClientDisconnected.
    """
    if request.content_length > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    more = True
    while more and size <= limit * _PATIENCE:
        # A clock costs more than to take what is here already.
        message = await (request.receive() if request.received else _within(silence, request.receive))
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client closed the connection")
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size <= limit:
            parts.append(message.get("body", b""))
        else:
            parts.clear()
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


async def _within(silence: float, receive: Receive) -> Message:
    try:
        async with asyncio.timeout(silence):
            return await receive()
    except TimeoutError as error:
        message = f"Timed out waiting for the request body: no data received for {silence:.0f} seconds."
        raise BodyTooSlow(message) from error


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is too large: the maximum is {limit} bytes.")


def generation_settings_of(settings: Settings) -> GenerationSettings:
    """What the operator decided for conversations."""
    return GenerationSettings(
        default_max_tokens=settings.default_max_tokens, allow_chat_template=settings.allow_chat_template
    )


class Call(NamedTuple, Generic[R]):
    """A request as it was read: `params`, from the JSON object `body` of `size` bytes, with the `headers` that its
    response gets because of it."""

    request: Request
    params: R
    body: dict[str, Any]
    size: int
    headers: dict[str, str]

    @property
    def generation_settings(self) -> GenerationSettings:
        return generation_settings_of(self.request.services.settings)


async def read(request: Request, reader: Reader[R]) -> Call[R]:
    """Raises what `read_body` and `reader` do."""
    settings = request.services.settings
    body = await read_body(request, settings.max_body)
    found = await offload_if_large(len(body), partial(reader, strict=settings.strict), body)
    return Call(request, found.request, found.body, len(body), _ignored(found.unknown))


def _ignored(unknown: Sequence[str]) -> dict[str, str]:
    """The header that names the unknown parameters, which have no effect."""
    names = [re.sub(r"[^A-Za-z0-9._-]", "?", name)[:64] for name in unknown[:32]]
    return {"x-ignored-params": ", ".join(names)} if names else {}


def json_response(content: object, *, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), headers=headers)


def error_response(error: Exception) -> Response:
    """What a client gets for `error`."""
    answer = to_http_error(error)
    return Response(answer.body, status=answer.status, headers=answer.headers)
