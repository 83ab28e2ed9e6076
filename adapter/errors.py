"""The only table from errors to what OpenAI's clients expect: status, type, code, param, headers.

Overload is 503 with Retry-After, as OpenAI's own "engine is overloaded": clients retry it, and wait as long as they
are told. It is not 429, which says that too much was sent: that is what a provider said to us. It is never 400, which
is not retried.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import msgspec

from adapter.request_id import current_request
from subnet.errors import (
    ContentRefused,
    ContextLengthExceeded,
    NodeBusy,
    NodeError,
    NodeTimeout,
    NoNodeAvailable,
    RateLimited,
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
    """Base of the gateway's own: the request never reached the subnet."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class BadRequest(AdapterError):
    """The client's mistake. `param` is the place, like `messages[2].content[0].type`."""


def invalid(param: str, why: str, code: str = "invalid_value") -> BadRequest:
    """Returns the error for a client's mistake at `param`: "Invalid value for 'x': why."."""
    return BadRequest(f"Invalid value for '{param}': {why}.", param=param, code=code)


class BadKey(AdapterError):
    """The client brought no key, or one that is none of ours."""


class ModelNotFound(AdapterError):
    """No node has ever served a model of this name."""


class UnknownUrl(AdapterError):
    pass


class WrongMethod(AdapterError):
    """`allowed` are the right ones, with commas between them."""

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class BodyTooLarge(AdapterError):
    pass


class BodyTooSlow(AdapterError):
    """The client stopped in the middle of its request."""


class ModelUnusable(AdapterError):
    """What the nodes say of a model makes no tokenizer or no template. Whoever raises it has logged why, once."""


class ClientGone(AdapterError):
    """Nobody is there to read an answer."""


class Row(msgspec.Struct, frozen=True):
    """How one kind of error is reported, and `when`, for the documentation.

    None for `code` or `message`: the error's own. Messages of nodes may contain addresses and the like, so clients get
    another one. `retry` is the Retry-After in seconds where the error has none; `close`: the connection is closed too.
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
    ContextLengthExceeded: Row(
        400,
        _CLIENT,
        "context_length_exceeded",
        "The prompt, or the prompt and `max_tokens`, exceed the context length.",
    ),
    ContentRefused: Row(
        400, _CLIENT, "content_policy_violation", "The upstream server's content policy rejected the request."
    ),
    RequestError: Row(400, _CLIENT, "invalid_value", "The engine or the upstream server rejected a parameter."),
    BadKey: Row(401, _CLIENT, "invalid_api_key", "The API key is missing or wrong."),
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
    BodyTooLarge: Row(413, _CLIENT, "request_too_large", "The request body is larger than `max_body`."),
    # Of the upstream servers: a client that waits as long as it is told is served.
    RateLimited: Row(
        429,
        "requests",
        "rate_limit_exceeded",
        "Every upstream server of the model rate-limits the gateway.",
        f"Rate limit reached. {_LATER}",
        1.0,
    ),
    ClientGone: Row(
        499, _CLIENT, "client_closed_request", "The client closed the connection; only in logs and metrics."
    ),
    Exception: Row(
        500,
        _SERVER,
        "internal_error",
        "An unexpected error in the gateway; its log has the traceback.",
        f"The server had an error while processing your request. {_LATER}",
    ),
    # The nodes refuse this gateway's credentials, not its client's.
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
    SessionClosed: Row(
        503, _SERVER, "shutting_down", "The gateway is shutting down.", "The gateway is shutting down.", 1.0
    ),
    # Which wait was too long says nothing to a client: after a failover it is a first token again.
    NodeTimeout: Row(
        504,
        _SERVER,
        "model_timeout",
        "No node produced a token in time.",
        "The request timed out waiting for the model.",
    ),
}


def rows() -> Iterable[Row]:
    """Returns every kind of error that a request can end with, by status."""
    return sorted(_TABLE.values(), key=lambda row: row.status)


class Answer(msgspec.Struct, frozen=True):
    """An error as it goes out."""

    status: int
    error: Error
    headers: dict[str, str] = {}

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(ErrorResponse(self.error))


def answer_to(error: Exception) -> Answer:
    """What a client is told of `error`; of one that nobody foresaw nothing but that it happened."""
    row = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    told = Error(
        message=row.message or str(error),
        type=row.type,
        param=getattr(error, "param", None),
        code=row.code or getattr(error, "code", None),
    )
    wait = row.retry and (getattr(error, "retry_after", None) or row.retry)
    headers = {"connection": "close"} if row.close else {}
    if isinstance(error, WrongMethod):
        headers["allow"] = error.allowed
    if row.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Answer(row.status, told, headers | (_retry_headers(wait) if wait else {}))


def report(error: Exception) -> None:
    """Log what the operator should know, and has not been told: the traceback only of what nobody foresaw."""
    if isinstance(error, ModelUnusable):
        return
    status = answer_to(error).status
    if status == 500:
        logger.error("request %s failed", current_request.get(), exc_info=error)
    elif status > 500:
        logger.warning("request %s: %s: %s", current_request.get(), type(error).__name__, error)


def _retry_headers(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(math.ceil(seconds * 1000))}
