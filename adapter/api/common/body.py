"""Reading of request bodies and writing of JSON responses, for all endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from adapter.api.common.content_coding import check_content_coding, decode_body
from adapter.api.common.http_request import Request
from adapter.api.common.readers import Reader
from adapter.config import Settings
from adapter.errors import BodyTooLarge, BodyTooSlow, ClientDisconnected, to_http_error
from adapter.generation.base import Work
from adapter.generation.prepare import GenerationSettings
from adapter.offload import offload_if_large
from adapter.server.asgi import Message, Receive
from adapter.server.responses import Response

R = TypeVar("R", bound=msgspec.Struct)

# A client that is still sending does not read an error response: the rest of a body that is too large is received and
# discarded, up to this multiple of the limit.
_DISCARD_FACTOR = 16

# Limits of a response header that lists names or paths, in bytes.
_MAX_HEADER, _MAX_ITEM = 1024, 256
_MORE = ", ..."

BODY_TIMEOUT = 60.0
"""Maximum number of seconds between two parts of a request body, and that a body may be late at the minimum rate."""

# Of a body, in bytes per second.
_MIN_RATE = 1024


async def read_body(request: Request, limit: int, *, idle_timeout: float = BODY_TIMEOUT) -> bytes:
    """Return the body of a request, whatever its content type.

    Raises BodyTooLarge for more than `limit` bytes (at once if Content-Length says so), BodyTooSlow if no data arrives
    for `idle_timeout` seconds, or less than 1 KiB per second after that time, and ClientDisconnected if the client
    disconnects.
    """
    if request.content_length > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    more = True
    started = asyncio.get_running_loop().time()
    while more and size <= limit * _DISCARD_FACTOR:
        # A timeout costs more than receiving data that has already arrived.
        if request.body_received:
            message = await request.receive()
        else:
            message = await _receive_within(idle_timeout, started + size / _MIN_RATE, request.receive)
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


async def _receive_within(idle_timeout: float, due: float, receive: Receive) -> Message:
    """Receive a part of a body. `due` is the time of the loop at which what was received should have arrived."""
    now = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(min(idle_timeout, due + idle_timeout - now)):
            return await receive()
    except TimeoutError as error:
        message = (
            f"Timed out waiting for the request body: no data received for {idle_timeout:.0f} seconds, "
            f"or less than {_MIN_RATE} bytes per second."
        )
        raise BodyTooSlow(message) from error


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is too large: the maximum is {limit} bytes.")


def generation_settings_of(settings: Settings) -> GenerationSettings:
    """Return the settings that apply to the prompts of all requests."""
    return GenerationSettings(
        default_max_tokens=settings.default_max_tokens, allow_chat_template=settings.allow_chat_template
    )


class Call(NamedTuple, Generic[R]):
    """A request with its validated parameters.

    `params` was read from `body`, a JSON object of `size` bytes. `headers` are for any response, `ignored` for those on
    the token lane: they name the parameters without effect. A reader without a contract leaves it to `validate` to find
    them.
    """

    request: Request
    params: R
    body: dict[str, Any]
    size: int
    headers: dict[str, str]
    ignored: dict[str, str]

    def headers_for(self, work: Work) -> dict[str, str]:
        """Return the headers for the answer of `work`, all of which are known before it runs.

        On the chat lane the server gets all parameters, so that none is ignored.
        """
        if work.card.lane == "chat":
            return self.headers
        bounded = work.bounded_tokens
        return {
            **self.headers,
            **self.ignored,
            **_list_header("x-schema-relaxed", work.relaxed),
            **({} if bounded is None else {"x-max-tokens-bounded": str(bounded)}),
        }

    @property
    def generation_settings(self) -> GenerationSettings:
        return generation_settings_of(self.request.services.settings)


async def validate(call: Call[Any], reader: Reader[R]) -> R:
    """Validate the body of `call` with another reader. Adds to `ignored`, and raises the errors of `reader`."""
    strict = call.request.services.settings.strict
    found = await offload_if_large(call.size, partial(reader.validate, strict=strict), call.body)
    call.ignored.update(_ignored_params(found.unknown))
    return found.request


async def read(request: Request, reader: Reader[R]) -> Call[R]:
    """Read and validate the body of a request. A model in the path replaces that in the body. Raises the errors of
    `read_body`, `decode_body` and `reader`.
    """
    settings = request.services.settings
    coding = check_content_coding(request.header(b"content-encoding"))
    body = await decode_body(await read_body(request, settings.max_body), coding, settings.max_body)
    read_parameters = partial(reader, strict=settings.strict, model=request.target.model)
    found = await offload_if_large(len(body), read_parameters, body)
    headers = _list_header("x-body-repaired", found.repairs)
    return Call(request, found.request, found.body, len(body), headers, _ignored_params(found.unknown))


def _ignored_params(unknown: Sequence[str]) -> dict[str, str]:
    """Return the header that names the unknown parameters, which have no effect; empty if there are none."""
    return _list_header("x-ignored-params", unknown)


def _list_header(name: str, items: Sequence[str]) -> dict[str, str]:
    """Return a header with names or paths, in printable ASCII and as many as fit; none if there are no items."""
    if not items:
        return {}
    text = ""
    for number, item in enumerate(items):
        part = re.sub(r"[^A-Za-z0-9._$\[\]-]", "?", item)[:_MAX_ITEM]
        if len(text) + len(part) > _MAX_HEADER - len(_MORE) - 2:
            return {name: text + _MORE}
        text += f", {part}" if number else part
    return {name: text}


def json_response(content: object, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response with `content` as JSON."""
    return Response(msgspec.json.encode(content), headers=headers)


def error_response(error: Exception) -> Response:
    """Return the response that reports `error` to a client of OpenAI's API."""
    answer = to_http_error(error)
    return Response(answer.body, status=answer.status, headers=answer.headers)
