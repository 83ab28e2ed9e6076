"""HTTP request as endpoints receive it, and the services of the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from adapter.api.common.access_log import Record
from adapter.config import Settings
from adapter.generation.model_registry import ModelRegistry
from adapter.lifecycle import Lifecycle
from adapter.metrics import Metrics
from adapter.server.asgi import ASGIApp, Receive, Scope
from adapter.server.response_writer import writer_of
from subnet import RemoteManager, SessionManager
from subnet.budget import Budget, current_client

TARGET = "adapter.target"
"""Key of the request's Target in the ASGI scope."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Services that the endpoints of one gateway share."""

    settings: Settings
    models: ModelRegistry
    sessions: SessionManager
    remotes: RemoteManager
    lifecycle: Lifecycle
    metrics: Metrics
    memory: Budget
    """Bytes of the bodies of running requests."""


class Target(msgspec.Struct, frozen=True):
    """What the path of a request refers to.

    `path` is the canonical path. `endpoint` is that of the route, without the name in braces; None if the path has
    none. `model` is the model that an alias names. `open`: no API key is required.
    """

    path: str
    endpoint: str | None = None
    model: str | None = None
    open: bool = False


class Request:
    """An HTTP request. `record` is what metrics and the access log report about it."""

    __slots__ = ("_held", "receive", "record", "scope", "services")

    def __init__(self, scope: Scope, receive: Receive, services: Services, record: Record) -> None:
        self.scope = scope
        self.receive = receive
        self.services = services
        self.record = record
        self._held = 0

    @property
    def method(self) -> str:
        """HTTP method; GET for a HEAD request, as the server omits the body."""
        method: str = self.scope["method"]
        return "GET" if method == "HEAD" else method

    @property
    def path(self) -> str:
        """Path as the client sent it, decoded."""
        return self.record.path

    @property
    def target(self) -> Target:
        target: Target = self.scope[TARGET]
        return target

    def header(self, name: bytes) -> str | None:
        """Return the value of the header `name` (in lower case), decoded as Latin-1; None if it is absent."""
        return next((value.decode("latin-1") for known, value in self.scope["headers"] if known == name), None)

    @property
    def body_received(self) -> bool:
        """True if the whole body has been received."""
        return writer_of(self.scope).request_received

    @property
    def content_length(self) -> int:
        """Value of the Content-Length header in bytes; 0 if there is none."""
        return int(self.header(b"content-length") or 0)

    @property
    def max_body(self) -> int:
        """Maximum size of the body, in bytes, which includes that the client may have as much in memory."""
        return min(self.services.settings.max_body, self.services.memory.limit_of(current_client.get()))

    def hold(self, size: int) -> None:
        """Account for `size` bytes of memory for the body of this request, in place of those so far; 0 when it ends.

        Raises Overloaded and ClientLimited if the bodies of all requests need too much.
        """
        more, client = size - self._held, current_client.get()
        if more > 0:
            self.services.memory.take(client, more)
        elif more < 0:
            self.services.memory.release(client, -more)
        self._held = size


Endpoint = Callable[[Request], Awaitable[ASGIApp]]
"""Handles a request and returns the ASGI application that sends the response."""
