"""What is noted of a request: it is counted, and one line is logged, when it is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

import msgspec

from adapter.asgi import Scope
from adapter.completion import Completion
from adapter.metrics import Metrics
from adapter.request_id import current_request, request_id
from subnet.client.ledger import Ledger

logger = logging.getLogger("adapter.access")

_encode = msgspec.json.encode
_LEFT = 499
# That of the API which clients are written for.
_VERSION = (b"openai-version", b"2020-10-01")


class Record(msgspec.Struct):
    """Of one request. `status` is None as long as it has no answer; `completions` are what nodes are asked for. `path`
    is kept here, as routers cut that of a scope.
    """

    id: str
    started: float
    path: str = ""
    status: int | None = None
    completions: Sequence[Completion] = ()

    @property
    def ledgers(self) -> list[Ledger]:
        return [completion.ledger for completion in self.completions if completion.ledger is not None]

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer tells of its request."""
        milliseconds = b"%.0f" % ((perf_counter() - self.started) * 1000)
        headers = [(b"x-request-id", self.id.encode()), (b"openai-processing-ms", milliseconds), _VERSION]
        if ledgers := self.ledgers:
            headers.append((b"x-subnet-nodes", ", ".join(_asked(ledgers)).encode()))
            headers.append((b"x-subnet-switches", b"%d" % sum(len(ledger.nodes) - 1 for ledger in ledgers)))
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
        self._metrics.ended(status, seconds, record.completions)
        if self._log and logger.isEnabledFor(logging.INFO):
            line = _encode(_line(scope, record, status, seconds)).decode()
            # `logger.info` would first look for the line of code that it was called from.
            logger.handle(logging.LogRecord(logger.name, logging.INFO, __file__, 0, line, None, None))


def _line(scope: Scope, record: Record, status: int, seconds: float) -> dict[str, object]:
    line: dict[str, object] = {
        "request": record.id,
        "method": scope["method"],
        "path": record.path,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    if record.completions:
        usages = [completion.usage for completion in record.completions]
        line["model"] = record.completions[0].model.card.id
        if ledgers := record.ledgers:
            line["nodes"] = [peer for ledger in ledgers for peer in ledger.peers]
        line["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        line["completion_tokens"] = sum(usage.completion_tokens for usage in usages)
    return line


def _asked(ledgers: Sequence[Ledger]) -> list[str]:
    """The nodes in order: of a single answer each time that one was asked, of several once."""
    nodes = [node for ledger in ledgers for node in ledger.nodes]
    return nodes if len(ledgers) == 1 else list(dict.fromkeys(nodes))
