"""Table of errors and the responses that OpenAI's clients expect for them: status, type, code, param, headers.

Overload is 503 with Retry-After, like OpenAI's own "engine is overloaded": clients wait for that time and retry. 429 is
for limits of one client, and for rate limits of upstream servers. Overload is never 400, which clients do not retry.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import msgspec

from adapter.request_id import current_request
from subnet.errors import (
    AnswerTimeout,
    ClientLimited,
    ContentRefused,
    ContextLengthExceeded,
    EndpointMissing,
    NodeBusy,
    NodeError,
    NodeTimeout,
    NoNodeAvailable,
    Overloaded,
    RateLimited,
    RepeatedFailure,
    RequestError,
    SessionClosed,
    Unauthorized,
)

logger = logging.getLogger(__name__)


class Error(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    error: Error


class AdapterError(Exception):
    """Base of the gateway's own errors: the request never reached the subnet."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class BadRequest(AdapterError):
    """Invalid request. `param` is the path of the invalid value, such as `messages[2].content[0].type`."""


def invalid(param: str, why: str, code: str = "invalid_value") -> BadRequest:
    """Return the error for an invalid value at `param`, with the message "Invalid value for '<param>': <why>."."""
    return BadRequest(f"Invalid value for '{param}': {why}.", param=param, code=code)


class InvalidApiKey(AdapterError):
    """Missing or unknown API key."""


class HostRefused(AdapterError):
    """Request for a host name that is not allowed."""


class OriginRefused(AdapterError):
    """Request from a web page whose origin is not allowed."""


class ModelNotFound(AdapterError):
    """Unknown model: no node has ever served one of this name."""


class UnknownUrl(AdapterError):
    pass


class WrongMethod(AdapterError):
    """Unsupported HTTP method. `allowed` is the value of the `Allow` header: methods, separated by commas."""

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class InvalidHttp(AdapterError):
    """A request that HTTP does not allow."""


class UnsupportedTransferCoding(AdapterError):
    """A request body in a transfer coding that the server does not know."""


class UnsupportedContentCoding(AdapterError):
    """A request body in a content coding that the server does not know."""


class HeadersTooLarge(AdapterError):
    """The head of a request is larger than the server accepts."""


class BodyTooLarge(AdapterError):
    pass


class BodyTooSlow(AdapterError):
    """Timeout: the client stopped sending in the middle of its request."""


class CompletionTooLong(ContextLengthExceeded):
    """The prompt fits into the model's context, but not with all tokens that the client requested: only `room` do."""


class ModelUnusable(AdapterError):
    """Model whose tokenizer or chat template cannot be loaded. Whatever raises it has logged the reason, once."""


class ClientDisconnected(AdapterError):
    """The client closed the connection, so the response cannot be delivered."""


class Row(msgspec.Struct, frozen=True):
    """Response for one type of error.

    `type` and `code` are fields of OpenAI's error object. `when` describes the cause in the documentation. If `code` or
    `message` is None, the error's own is used; messages of nodes may contain addresses and the like, so their rows have
    a fixed message. `retry` is the Retry-After in seconds if the error has none; None for no such header. `close` means
    that the connection is closed after the response.
    """

    status: int
    type: str
    code: str | None
    when: str
    message: str | None = None
    retry: float | None = None
    close: bool = False


_CLIENT, _SERVER = "invalid_request_error", "server_error"
_LATER = "Please try again later."
_TABLE: dict[type[Exception], Row] = {
    BadRequest: Row(400, _CLIENT, None, "The request is invalid; `param` names the place."),
    InvalidHttp: Row(
        400, _CLIENT, "invalid_http", "The request is not valid HTTP; the connection is closed.", close=True
    ),
    ContextLengthExceeded: Row(
        400,
        _CLIENT,
        "context_length_exceeded",
        "The prompt, or the prompt and `max_tokens`, exceed the context length.",
    ),
    ContentRefused: Row(
        400, _CLIENT, "content_policy_violation", "The upstream server's content policy rejected the request."
    ),
    RequestError: Row(400, _CLIENT, "invalid_value", "The model's nodes or the upstream server rejected the request."),
    EndpointMissing: Row(400, _CLIENT, "unsupported_model", "No server of the model has the endpoint."),
    InvalidApiKey: Row(401, _CLIENT, "invalid_api_key", "The API key is missing or wrong."),
    HostRefused: Row(403, _CLIENT, "host_not_allowed", "The Host header names a host that is not in `allowed_hosts`."),
    OriginRefused: Row(403, _CLIENT, "origin_not_allowed", "The request comes from a web page that may not call."),
    ModelNotFound: Row(404, _CLIENT, "model_not_found", "No node serves a model of that name."),
    UnknownUrl: Row(404, _CLIENT, "unknown_url", "There is no such endpoint."),
    WrongMethod: Row(405, _CLIENT, "method_not_allowed", "The endpoint has other methods; `Allow` names them."),
    BodyTooSlow: Row(
        408,
        _CLIENT,
        "request_timeout",
        "The request body did not arrive in time; the connection is closed.",
        close=True,
    ),
    UnsupportedContentCoding: Row(
        415,
        _CLIENT,
        "unsupported_content_encoding",
        "The request body is compressed in another way than with `gzip` or `deflate`; see `Accept-Encoding`.",
    ),
    BodyTooLarge: Row(
        413,
        _CLIENT,
        "request_too_large",
        "The request body is larger than `max_body`, or than the client's share of `max_request_memory`.",
    ),
    HeadersTooLarge: Row(
        431, _CLIENT, "headers_too_large", "The URL and headers are larger than `max_head`, or more than `max_fields`."
    ),
    ClientLimited: Row(
        429,
        "requests",
        "rate_limit_exceeded",
        "The client has more connections, bytes of requests or waiting requests than its share, `max_client_share`.",
        retry=1.0,
    ),
    # The limit of the upstream servers: a client that waits for Retry-After can be served.
    RateLimited: Row(
        429,
        "requests",
        "rate_limit_exceeded",
        "Every upstream server of the model rate-limits the gateway.",
        f"Rate limit reached. {_LATER}",
        1.0,
    ),
    ClientDisconnected: Row(
        499, _CLIENT, "client_closed_request", "The client closed the connection; only in logs and metrics."
    ),
    Exception: Row(
        500,
        _SERVER,
        "internal_error",
        "An unexpected error in the gateway; its log has the traceback.",
        f"The server had an error while processing your request. {_LATER}",
    ),
    RepeatedFailure: Row(
        500,
        _SERVER,
        "repeated_failure",
        "The request failed on two nodes in a row, which it may have caused; it is refused for a minute.",
    ),
    UnsupportedTransferCoding: Row(
        501,
        _CLIENT,
        "invalid_http",
        "The request body has a transfer coding other than `chunked`; the connection is closed.",
        close=True,
    ),
    # Not 401: the nodes reject the credentials of the gateway, not those of its client.
    Unauthorized: Row(
        502,
        _SERVER,
        "node_refused",
        "The nodes reject the gateway's own secret or API key.",
        "The upstream nodes rejected this gateway's credentials.",
    ),
    ModelUnusable: Row(
        503, _SERVER, "model_unusable", "The model's tokenizer or chat template cannot be used; see the log."
    ),
    NoNodeAvailable: Row(503, _SERVER, "no_node_available", "No healthy node serves the model.", retry=1.0),
    NodeBusy: Row(
        503,
        _SERVER,
        "engine_overloaded",
        "All nodes stayed at capacity for `queue_timeout`.",
        f"The engine is currently overloaded. {_LATER}",
        1.0,
    ),
    NodeError: Row(
        503,
        _SERVER,
        "node_failed",
        "Every attempt on every node failed.",
        f"No node could complete the request. {_LATER}",
        1.0,
    ),
    Overloaded: Row(
        503,
        _SERVER,
        "gateway_overloaded",
        "The limit of all connections, bytes of requests or waiting requests is reached.",
        retry=1.0,
    ),
    SessionClosed: Row(
        503, _SERVER, "shutting_down", "The gateway is shutting down.", "The gateway is shutting down.", 1.0
    ),
    AnswerTimeout: Row(
        504,
        _SERVER,
        "answer_timeout",
        "The answer was not complete within `answer_timeout`.",
        "The answer took longer than this gateway allows.",
    ),
    # The message does not name the timeout: after a failover, the first-token timeout applies again.
    NodeTimeout: Row(
        504,
        _SERVER,
        "model_timeout",
        "No node produced a token in time.",
        "The request timed out waiting for the model.",
    ),
}


def rows() -> Iterable[Row]:
    """Return the rows of all errors, sorted by status."""
    return sorted(_TABLE.values(), key=lambda row: row.status)


class HttpError(msgspec.Struct, frozen=True):
    """Error response: HTTP status, error object and headers. `body` is the JSON."""

    status: int
    error: Error
    headers: dict[str, str] = {}

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(ErrorResponse(self.error))


def to_http_error(error: Exception) -> HttpError:
    """Return the response for `error`.

    An unexpected error becomes a 500 whose message has no details of it.
    """
    row = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    if isinstance(error, RequestError) and error.status is not None:
        return _upstream_error(error, error.status)
    body = Error(
        message=row.message or str(error),
        type=row.type,
        param=getattr(error, "param", None),
        code=row.code or getattr(error, "code", None),
    )
    retry_after = row.retry and (getattr(error, "retry_after", None) or row.retry)
    headers = {"connection": "close"} if row.close else {}
    if isinstance(error, WrongMethod):
        headers["allow"] = error.allowed
    if isinstance(error, UnsupportedContentCoding):
        # What a server accepts, in a response with this status (RFC 9110, section 12.5.3).
        headers["accept-encoding"] = "gzip, deflate"
    if row.status == 401:
        headers["www-authenticate"] = "Bearer"
    return HttpError(row.status, body, headers | (_retry_headers(retry_after) if retry_after else {}))


def _upstream_error(error: RequestError, status: int) -> HttpError:
    """Return the response of an upstream server that rejected the request: it knows best what is wrong."""
    body = Error(message=str(error), type=error.upstream_type or _CLIENT, param=error.param, code=error.upstream_code)
    return HttpError(status, body)


def log_error(error: Exception) -> None:
    """Log `error` if it is a server error (5xx): unexpected ones with a traceback, others as a warning.

    ModelUnusable is left out, as the code that raises it has logged it.
    """
    if isinstance(error, ModelUnusable):
        return
    status = to_http_error(error).status
    if status == 500 and not isinstance(error, RepeatedFailure):
        logger.error("request %s failed", current_request.get(), exc_info=error)
    elif status >= 500:
        logger.warning("request %s: %s: %s", current_request.get(), type(error).__name__, error)


def _retry_headers(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(math.ceil(seconds * 1000))}
