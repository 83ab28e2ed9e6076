"""Errors and streams as Anthropic's clients expect them."""

from __future__ import annotations

import re

import msgspec

from adapter.api.common.dialect import Dialect
from adapter.api.messages.places import Places
from adapter.api.messages.response import ErrorDetail, ErrorMessage
from adapter.errors import HttpError

# platform.claude.com/docs/en/api/errors. Anthropic's status for overload, 529, is nonstandard: 503 is retried as well.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# What types of parts are called by Anthropic.
_BLOCK_TYPES = {"image_url": "image", "file": "document"}
_BLOCK_TYPE = re.compile(rf"type '({'|'.join(_BLOCK_TYPES)})'")
_NO_PLACES = Places()


class AnthropicDialect(Dialect):
    """Anthropic's API. `places` are those of the request, once it was translated: errors then name the client's."""

    keep_alive = b'event: ping\ndata: {"type":"ping"}\n\n'
    end = b""
    id_headers = (b"request-id",)

    def __init__(self, places: Places = _NO_PLACES) -> None:
        self._places = places

    def http_error(self, error: Exception) -> HttpError:
        response = super().http_error(error)
        param = response.error.param
        if param is None:
            return response
        place = self._places.find(param)
        message = response.error.message.replace(f"'{param}'", f"'{place}'")
        if place.endswith(".type"):
            message = _BLOCK_TYPE.sub(lambda found: f"type '{_BLOCK_TYPES[found[1]]}'", message)
        return msgspec.structs.replace(
            response, error=msgspec.structs.replace(response.error, param=place, message=message)
        )

    def error_body(self, error: HttpError, request_id: str) -> bytes:
        kind = _TYPES.get(error.status) or ("api_error" if error.status >= 500 else "invalid_request_error")
        return msgspec.json.encode(ErrorMessage(ErrorDetail(kind, error.error.message), request_id))

    def error_event(self, body: bytes) -> bytes:
        return b"event: error\ndata: " + body + b"\n\n"


ANTHROPIC = AnthropicDialect()
