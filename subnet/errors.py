"""Every error that crosses a boundary of the subnet.

SubnetError
├── SettingsError              a wrong setting, in one clear line
├── RequestError               the request itself is wrong: never retried, never held against a node
│   ├── InvalidRequest
│   ├── ContextLengthExceeded
│   └── ContentRefused         the server's own rules forbid an answer
├── NodeError                  this node could not do it: another may
│   ├── NodeLost               not reachable, or the connection broke
│   ├── NodeBusy               no capacity left
│   │   └── RateLimited        this gateway asks the server more often than it may
│   ├── NodeLeaving            about to end: takes no new work, hands over what it has
│   ├── NodeTimeout
│   │   ├── FirstTokenTimeout
│   │   └── InterTokenTimeout
│   ├── Unauthorized           the two do not trust each other
│   ├── EngineFailed           the engine behind the node broke
│   └── WireError              bytes that do not decode, or say what they must not
├── NoNodeAvailable            nobody is left to ask
└── SessionClosed              used after close

Errors travel as `(code, message, retry_after, param)`; `from_code` makes the same class again on the other side.
"""

from __future__ import annotations

from typing import ClassVar


class SubnetError(Exception):
    """Base of all of them. `code` names the class on the wire; `retry_after` is in seconds, or None."""

    code: ClassVar[str] = "subnet_error"

    def __init__(self, message: str, *, retry_after: float | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.param = param


class SettingsError(SubnetError):
    code = "settings_error"


class RequestError(SubnetError):
    """The same request would fail on every node."""

    code = "request_error"


class InvalidRequest(RequestError):
    code = "invalid_request"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class ContentRefused(RequestError):
    code = "content_refused"


class NodeError(SubnetError):
    """Another node may succeed where this one did not."""

    code = "node_error"


class NodeLost(NodeError):
    code = "node_lost"


class NodeBusy(NodeError):
    code = "node_busy"


class RateLimited(NodeBusy):
    code = "rate_limited"


class NodeLeaving(NodeError):
    code = "node_leaving"


class NodeTimeout(NodeError):
    code = "node_timeout"


class FirstTokenTimeout(NodeTimeout):
    code = "first_token_timeout"


class InterTokenTimeout(NodeTimeout):
    code = "inter_token_timeout"


class Unauthorized(NodeError):
    code = "unauthorized"


class EngineFailed(NodeError):
    code = "engine_failed"


class WireError(NodeError):
    code = "wire_error"


class NoNodeAvailable(SubnetError):
    code = "no_node_available"


class SessionClosed(SubnetError):
    code = "session_closed"


def _tree(root: type[SubnetError]) -> dict[str, type[SubnetError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE = _tree(SubnetError)


def from_code(code: str, message: str, *, retry_after: float | None = None, param: str | None = None) -> SubnetError:
    """The error that `code` names; a code of a newer version becomes a plain NodeError."""
    return _BY_CODE.get(code, NodeError)(message, retry_after=retry_after, param=param)
