"""What is noted of a request: it is counted, and one line is logged, when it is over."""

from __future__ import annotations

import logging
from time import perf_counter

import msgspec

from adapter.asgi import Scope
from adapter.completion import Completion
from adapter.metrics import Metrics
from adapter.request_id import current_request, request_id

logger = logging.getLogger("adapter.access")

_encode = msgspec.json.encode
_LEFT = 499


class Record(msgspec.Struct):
    """Of one request. `status` is None as long as it has no answer."""

    id: str
    started: float
    status: int | None = None
    completion: Completion | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer tells of its request."""
        milliseconds = b"%.0f" % ((perf_counter() - self.started) * 1000)
        headers = [(b"x-request-id", self.id.encode()), (b"openai-processing-ms", milliseconds)]
        if self.completion is not None and (ledger := self.completion.ledger) is not None:
            headers.append((b"x-subnet-nodes", ", ".join(ledger.nodes).encode()))
            headers.append((b"x-subnet-switches", b"%d" % (len(ledger.nodes) - 1)))
        return headers


class Access:
    """Of one gateway. `log`: write the lines."""

    def __init__(self, metrics: Metrics, *, log: bool = True) -> None:
        self._metrics = metrics
        self._log = log

    def begun(self, scope: Scope) -> Record:
        """A request came; its id is that of what is logged in its task from now on."""
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        record = Record(request_id(given), perf_counter())
        current_request.set(record.id)
        return record

    def ended(self, scope: Scope, record: Record) -> None:
        """It was answered, or its client has left."""
        seconds, status = perf_counter() - record.started, record.status or _LEFT
        self._metrics.ended(status, seconds, record.completion)
        if self._log and logger.isEnabledFor(logging.INFO):
            line = _encode(_line(scope, record, status, seconds)).decode()
            # `logger.info` would first look for the line of code that it was called from.
            logger.handle(logging.LogRecord(logger.name, logging.INFO, __file__, 0, line, None, None))


def _line(scope: Scope, record: Record, status: int, seconds: float) -> dict[str, object]:
    line: dict[str, object] = {
        "request": record.id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    if record.completion is not None:
        usage = record.completion.usage
        line["model"] = record.completion.model.card.id
        if record.completion.ledger is not None:
            line["nodes"] = record.completion.ledger.peers
        line["prompt_tokens"], line["completion_tokens"] = usage.prompt_tokens, usage.completion_tokens
    return line
