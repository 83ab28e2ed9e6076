"""A request as its endpoint gets it."""

from __future__ import annotations

import msgspec

from adapter.api.access_log import Record
from adapter.auth.keys import Keys
from adapter.config import Settings
from adapter.generation.models import Models
from adapter.lifecycle import Lifecycle
from adapter.metrics import Metrics
from adapter.server.asgi import Receive, Scope
from adapter.server.response_writer import writer_of
from subnet import RemoteManager, SessionManager


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    keys: Keys
    models: Models
    sessions: SessionManager
    remotes: RemoteManager
    lifecycle: Lifecycle
    metrics: Metrics


class Request:
    """`parts` are those of the gateway that was asked, `record` is what will be told of the request."""

    __slots__ = ("parts", "receive", "record", "scope")

    def __init__(self, scope: Scope, receive: Receive, parts: Parts, record: Record) -> None:
        self.scope = scope
        self.receive = receive
        self.parts = parts
        self.record = record

    @property
    def method(self) -> str:
        """HEAD is asked as GET is: the server leaves the body out."""
        method: str = self.scope["method"]
        return "GET" if method == "HEAD" else method

    @property
    def path(self) -> str:
        return self.record.path

    def header(self, name: bytes) -> str | None:
        """`name` in lower case."""
        return next((value.decode("latin-1") for known, value in self.scope["headers"] if known == name), None)

    @property
    def received(self) -> bool:
        """Whether all of its body is here."""
        return writer_of(self.scope).request_received

    @property
    def content_length(self) -> int:
        """As the client tells it; 0 where it does not."""
        return int(self.header(b"content-length") or 0)
