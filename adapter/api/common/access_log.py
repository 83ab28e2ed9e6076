"""What is noted of a request: it is counted, and one line is logged, when it is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

import msgspec

from adapter.generation.base import TriedNodes, Work
from adapter.metrics import Metrics
from adapter.request_id import current_request, request_id
from adapter.server.asgi import Scope

logger = logging.getLogger("adapter.access")

_encode = msgspec.json.encode
_LEFT = 499
# That of the API which clients are written for.
_VERSION = (b"openai-version", b"2020-10-01")


class Record(msgspec.Struct):
    """What metrics and the access log report about one request.

    `status` is None as long as it has no response. `path` is kept here, as routers cut that of a scope; `endpoint` is
    the path of the route. `works` are what models did for it; `error` is the code of the error
    that it ended with, and `param` the parameter that the error names.
    """

    id: str
    started: float
    path: str = ""
    status: int | None = None
    works: Sequence[Work] = ()
    endpoint: str = "other"
    error: str | None = None
    param: str | None = None

    @property
    def asked(self) -> list[TriedNodes]:
        """The nodes that were asked for each answer; requests that found all nodes at capacity asked none."""
        return [asked for work in self.works for asked in work.tried_nodes]

    def answered(self, status: int) -> list[tuple[bytes, bytes]]:
        """Now it is; what every answer tells of its request."""
        self.status = status
        milliseconds = b"%.0f" % ((perf_counter() - self.started) * 1000)
        headers = [(b"x-request-id", self.id.encode()), (b"openai-processing-ms", milliseconds), _VERSION]
        if asked := self.asked:
            headers.append((b"x-subnet-nodes", ", ".join(_nodes(asked)).encode()))
            headers.append((b"x-subnet-switches", b"%d" % sum(len(one.nodes) - 1 for one in asked)))
        return headers


class Access:
    """Of one gateway. `log`: write the lines."""

    def __init__(self, metrics: Metrics, *, log: bool = True) -> None:
        self._metrics = metrics
        self._log = log

    def begun(self, scope: Scope) -> Record:
        """A request came; its id is that of what is logged in its task from now on."""
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        record = Record(request_id(given), perf_counter(), scope["path"])
        current_request.set(record.id)
        return record

    def ended(self, scope: Scope, record: Record) -> None:
        """It was answered, or its client has left."""
        seconds, status = perf_counter() - record.started, record.status or _LEFT
        self._metrics.record_request(record.endpoint, status, seconds, record.works)
        if self._log and logger.isEnabledFor(logging.INFO):
            text = _encode(_line(scope, record, status, seconds)).decode()
            # As `logger.info`, which takes twice as long, because it looks for the line of the caller.
            logger.handle(logging.LogRecord(logger.name, logging.INFO, __file__, 0, text, None, None))


def _line(scope: Scope, record: Record, status: int, seconds: float) -> dict[str, object]:
    line: dict[str, object] = {
        "request": record.id,
        "method": scope["method"],
        "path": record.path,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    if record.error is not None:
        line["error"] = record.error
        if record.param is not None:
            line["param"] = record.param
    if record.works:
        usages = [work.usage for work in record.works]
        line["model"] = record.works[-1].card.id
        if asked := record.asked:
            line["nodes"] = [peer for one in asked for peer in one.peers]
        line["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        line["completion_tokens"] = sum(usage.completion_tokens for usage in usages)
    return line


def _nodes(asked: Sequence[TriedNodes]) -> list[str]:
    """The nodes in order: for a single answer each time that one was asked, for several answers once."""
    nodes = [node for one in asked for node in one.nodes]
    return nodes if len(asked) == 1 else list(dict.fromkeys(nodes))
