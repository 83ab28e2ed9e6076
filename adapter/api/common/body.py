"""Reading of request bodies and writing of JSON responses, for all endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from adapter.api.common.content_coding import check_content_coding, decode_body
from adapter.api.common.http_request import Request
from adapter.api.common.large_json import encode_in_blocks
from adapter.api.common.readers import ParsedRequest, Reader
from adapter.config import Settings
from adapter.errors import BadRequest, BodyTooLarge, BodyTooSlow, ClientDisconnected, to_http_error
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

BODY_GRACE = 60.0
"""Maximum number of seconds that a request body may be late at the minimum rate."""

# Of a body, in bytes per second.
_MIN_RATE = 1024


async def read_body(request: Request, limit: int, *, grace: float = BODY_GRACE) -> bytes:
    """Return the body of a request, whatever its content type.

    Raises BodyTooLarge for more than `limit` bytes (at once if Content-Length says so), BodyTooSlow if no data arrives
    for `grace` seconds or it stays below 1 KiB per second, ClientDisconnected if the client disconnects, and the
    errors of `Request.hold`.
    """
    if request.content_length > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, more, clock = 0, True, asyncio.get_running_loop().time
    deadline = clock() + grace
    while more and size <= limit:
        # A timeout costs more than receiving data that has already arrived.
        message = await (request.receive() if request.body_received else _receive_by(deadline, request.receive))
        part, more = _body_part(message)
        size += len(part)
        request.hold(size)
        parts.append(part)
        # Data that arrives early is no reason to wait for longer later on.
        deadline = min(deadline + len(part) / _MIN_RATE, clock() + grace)
    if size > limit:
        parts.clear()
        request.hold(0)
        if more:
            await _discard(request, limit * _DISCARD_FACTOR - size, clock() + grace)
        raise _too_large(limit)
    return b"".join(parts)


async def _receive_by(deadline: float, receive: Receive) -> Message:
    """Receive a part of a body until `deadline`, a time of the event loop. Raises BodyTooSlow after it."""
    try:
        async with asyncio.timeout_at(deadline):
            return await receive()
    except TimeoutError as error:
        message = f"Timed out waiting for the request body: it arrived at less than {_MIN_RATE} bytes per second."
        raise BodyTooSlow(message) from error


async def _discard(request: Request, limit: int, deadline: float) -> None:
    """Receive the rest of a body, but at most `limit` bytes, and until `deadline`, a time of the event loop."""
    more = True
    with suppress(BodyTooSlow):
        while more and limit > 0:
            part, more = _body_part(await _receive_by(deadline, request.receive))
            limit -= len(part)


def _body_part(message: Message) -> tuple[bytes, bool]:
    """Return the part of the body in an ASGI message, and whether there is more. Raises ClientDisconnected."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnected("the client closed the connection")
    return message.get("body", b""), message.get("more_body", False)


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
        return {**self.headers, **self.ignored, **_list_header("x-schema-relaxed", work.relaxed)}

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
    """Read and validate the body of a request. A model in the path replaces that in the body, and the default model is
    used where it is missing. Raises the errors of `read_body`, `decode_body`, `Request.hold` and `reader`.
    """
    settings = request.services.settings
    coding = check_content_coding(request.header(b"content-encoding"))
    body = await decode_body(await read_body(request, request.max_body), coding, request.max_body)
    request.hold(len(body))

    async def parse(model: str | None) -> ParsedRequest[R]:
        return await offload_if_large(len(body), partial(reader, strict=settings.strict, model=model), body)

    try:
        found = await parse(request.target.model)
    except BadRequest as error:
        default = request.services.models.default_name
        if error.param != "model" or error.code != "missing_required_parameter" or settings.strict or default is None:
            raise
        found = await parse(default)
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


async def large_json_response(
    build: Callable[[], object], size: int, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response with what `build` returns as JSON, of about `size` bytes. It is made in a thread if it is
    large. It may have results of `long_list`.
    """
    return Response(await offload_if_large(size, lambda: encode_in_blocks(build())), headers=headers)


def error_response(error: Exception) -> Response:
    """Return the response that reports `error` to a client of OpenAI's API."""
    answer = to_http_error(error)
    return Response(answer.body, status=answer.status, headers=answer.headers)
