"""All errors that cross the boundaries of the subnet.

SubnetError
├── SettingsError              an invalid setting, in one line
├── RequestError               the request is invalid: never retried, not counted as a failure of the node
│   ├── InvalidRequest
│   ├── ContextLengthExceeded
│   └── ContentRefused         the upstream server's content policy rejected the request
├── NodeError                  this node failed: another node may succeed
│   ├── NodeLost               the node is unreachable, or the connection was lost
│   │   ├── NodeDied           the node's process ended while it was at the request
│   │   └── ResponseLost       one response was cut off; the node may be fine
│   ├── NodeBusy               the node is at capacity
│   │   └── RateLimited        the upstream server rate-limits this gateway
│   ├── NodeLeaving            the node is shutting down: it accepts no new requests and hands over running ones
│   ├── ContextFull            the node's context ended an answer before the requested tokens
│   ├── NodeTimeout
│   │   ├── FirstTokenTimeout
│   │   └── InterTokenTimeout
│   ├── Unauthorized           authentication failed
│   ├── EngineFailed           the node's engine failed
│   ├── EndpointMissing        the upstream server does not have the endpoint for this model
│   └── WireError              invalid data from the other side
├── NoNodeAvailable            no node can take the request
├── AnswerTimeout              the answer took too long, on however many nodes
├── RepeatedFailure            the request failed on two nodes in a row, and is not sent to another
├── Overloaded                 a limit for all clients together was reached
├── ClientLimited              a limit for one client was reached
└── SessionClosed              used after close

Errors are sent as `(code, message, retry_after, param)`; `from_code` restores the class on the other side.
"""

from __future__ import annotations

from typing import ClassVar


class SubnetError(Exception):
    """Base class of all errors of the subnet.

    `code` identifies the class on the wire, `retry_after` is in seconds, and `param` names the invalid parameter.
    """

    code: ClassVar[str] = "subnet_error"

    def __init__(self, message: str, *, retry_after: float | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.param = param


class SettingsError(SubnetError):
    """Settings are missing or invalid; the message has one line per mistake."""

    code = "settings_error"

    def report(self, program: str) -> str:
        """Return the text that `program` prints before it exits."""
        lines = str(self).splitlines()
        if len(lines) == 1:
            return f"{program}: {self}"
        return "\n  ".join([f"{program}: {len(lines)} invalid settings", *lines])


class RequestError(SubnetError):
    """The request would fail on every node.

    If an upstream server rejected it, `status`, `upstream_type` and `upstream_code` are those of its response. `room`
    is the maximum number of new tokens for which it would have been accepted, if only their number was too large; 0 if
    the prompt is too long, None if that is not known.
    """

    code = "request_error"
    room: int | None = None
    status: int | None = None
    upstream_type: str | None = None
    upstream_code: str | None = None


class InvalidRequest(RequestError):
    """A parameter of the request is invalid or unsupported."""

    code = "invalid_request"


class ContextLengthExceeded(RequestError):
    """The prompt does not fit into the model's context."""

    code = "context_length_exceeded"


class ContentRefused(RequestError):
    """The upstream server's content policy rejected the request."""

    code = "content_refused"


class NodeError(SubnetError):
    """A node failed; another node may succeed. `permanent`: the same node would fail again.

    `status` is that of an upstream server's response, if there was one.
    """

    code = "node_error"
    status: int | None = None
    permanent: ClassVar[bool] = False


class NodeLost(NodeError):
    """The node is unreachable, or the connection to it was lost."""

    code = "node_lost"


class NodeDied(NodeLost):
    """The node closed the connection in the middle of a request without a word: its process has ended."""

    code = "node_died"


class ResponseLost(NodeLost):
    """The connection was lost before the end of a response; other requests to the same address may be fine."""

    code = "response_lost"


class ContextFull(NodeError):
    """The node's context is full before the answer has the requested tokens; a node with a longer one can go on."""

    code = "context_full"


class NodeBusy(NodeError):
    """The node is at capacity."""

    code = "node_busy"


class RateLimited(NodeBusy):
    """The upstream server rate-limits this gateway."""

    code = "rate_limited"


class NodeLeaving(NodeError):
    """The node is shutting down."""

    code = "node_leaving"


class NodeTimeout(NodeError):
    """The node did not answer in time."""

    code = "node_timeout"


class FirstTokenTimeout(NodeTimeout):
    """The node sent no first token in time."""

    code = "first_token_timeout"


class InterTokenTimeout(NodeTimeout):
    """The node sent no further token in time."""

    code = "inter_token_timeout"


class Unauthorized(NodeError):
    """Authentication failed between this process and a node or an upstream server."""

    code = "unauthorized"
    permanent = True


class EngineFailed(NodeError):
    """The node's engine failed."""

    code = "engine_failed"


class EndpointMissing(NodeError):
    """The upstream server does not have the requested endpoint, or not for this model; it may be fine otherwise."""

    code = "endpoint_missing"
    permanent = True


class WireError(NodeError):
    """The other side sent data that cannot be decoded, or that is not allowed."""

    code = "wire_error"


class NoNodeAvailable(SubnetError):
    """No node can take the request."""

    code = "no_node_available"


class AnswerTimeout(SubnetError):
    """The answer was not complete in time. That is no failure of the node that was at it."""

    code = "answer_timeout"


class RepeatedFailure(SubnetError):
    """The request failed on two nodes in a row in a way that it may have caused."""

    code = "repeated_failure"


class Overloaded(SubnetError):
    """A limit for all clients together was reached, such as that of waiting requests."""

    code = "overloaded"


class ClientLimited(SubnetError):
    """A limit for one client was reached; others may still be served."""

    code = "client_limited"


class SessionClosed(SubnetError):
    """The session or its manager was closed."""

    code = "session_closed"


def to_subnet_error(error: BaseException) -> SubnetError:
    """Return `error` itself if it is a SubnetError, else an EngineFailed with its type and message."""
    return error if isinstance(error, SubnetError) else EngineFailed(f"{type(error).__name__}: {error}")


def _tree(root: type[SubnetError]) -> dict[str, type[SubnetError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


# A node reports its own failures and invalid requests. Other errors would end an answer that other nodes can continue.
_BY_CODE = _tree(NodeError) | _tree(RequestError)


_MAX_MESSAGE = 2000


def printable(text: str, maximum: int | None = _MAX_MESSAGE) -> str:
    """Return the first `maximum` characters of the other side's text for logs and terminals, with escapes for all that
    are not printable.
    """
    text = text[:maximum]
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def from_code(code: str, message: str, *, retry_after: float | None = None, param: str | None = None) -> SubnetError:
    """Return the error that a node reports by a code: a NodeError or a RequestError. Any other code is a NodeError."""
    return _BY_CODE.get(code, NodeError)(printable(message), retry_after=retry_after, param=param)
