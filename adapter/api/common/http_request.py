"""A request as its endpoint gets it, and the services of the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from adapter.api.common.access_log import Record
from adapter.auth.keys import ApiKeys
from adapter.config import Settings
from adapter.generation.model_registry import ModelRegistry
from adapter.lifecycle import Lifecycle
from adapter.metrics import Metrics
from adapter.server.asgi import ASGIApp, Receive, Scope
from adapter.server.response_writer import writer_of
from subnet import RemoteManager, SessionManager


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoints of one gateway work with."""

    settings: Settings
    keys: ApiKeys
    models: ModelRegistry
    sessions: SessionManager
    remotes: RemoteManager
    lifecycle: Lifecycle
    metrics: Metrics


class Request:
    """`record` is what metrics and the access log will report about the request."""

    __slots__ = ("receive", "record", "scope", "services")

    def __init__(self, scope: Scope, receive: Receive, services: Services, record: Record) -> None:
        self.scope = scope
        self.receive = receive
        self.services = services
        self.record = record

    @property
    def method(self) -> str:
        """HEAD counts as GET: the server leaves the body out."""
        method: str = self.scope["method"]
        return "GET" if method == "HEAD" else method

    @property
    def path(self) -> str:
        return self.record.path

    def header(self, name: bytes) -> str | None:
        """Returns the header `name` (in lower case), read as Latin-1."""
        return next((value.decode("latin-1") for known, value in self.scope["headers"] if known == name), None)

    @property
    def received(self) -> bool:
        """Whether the whole body has arrived."""
        return writer_of(self.scope).request_received

    @property
    def content_length(self) -> int:
        """As the client declares it, else 0."""
        return int(self.header(b"content-length") or 0)


Endpoint = Callable[[Request], Awaitable[ASGIApp]]
"""Answers a request with what can send the response."""
