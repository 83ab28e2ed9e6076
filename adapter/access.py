"""The outermost layer: gives every request its id, answers HEAD, counts it and logs one line when it is over."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

import msgspec
from litestar.types import ASGIApp, Message, Receive, Send

from adapter.completion import Completion
from adapter.metrics import Metrics
from adapter.request_id import current_request, request_id

logger = logging.getLogger("adapter.access")

_KEY = "adapter.record"


class Record(msgspec.Struct):
    """Of one request. `status` 499: the client left before there was one."""

    id: str
    started: float
    status: int = 499
    completion: Completion | None = None


def record_of(scope: Any) -> Record:
    """The record of the request that `scope` belongs to."""
    record: Record = scope[_KEY]
    return record


class Access:
    """Wraps the application. `log`: write the lines."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, log: bool = True) -> None:
        self.app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        record = Record(request_id(given), perf_counter())
        token = current_request.set(record.id)
        inner: Any = {**scope, _KEY: record, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *_headers(record)]
            await send(message)

        try:
            await self.app(inner, receive, send_named)
        finally:
            current_request.reset(token)
            self._metrics.ended(record.status, record.started, record.completion)
            if self._log:
                logger.info("%s", msgspec.json.encode(_line(scope, record)).decode())


def _headers(record: Record) -> list[tuple[bytes, bytes]]:
    milliseconds = f"{(perf_counter() - record.started) * 1000:.0f}"
    headers = [(b"x-request-id", record.id.encode()), (b"openai-processing-ms", milliseconds.encode())]
    if record.completion is not None and (ledger := record.completion.ledger) is not None:
        headers.append((b"x-subnet-nodes", ", ".join(ledger.nodes).encode()))
        headers.append((b"x-subnet-switches", str(len(ledger.nodes) - 1).encode()))
    return headers


def _line(scope: Any, record: Record) -> dict[str, object]:
    line: dict[str, object] = {
        "request": record.id,
        "method": scope["method"],
        "path": scope["path"],
        "status": record.status,
        "ms": round((perf_counter() - record.started) * 1000, 1),
    }
    if record.completion is not None:
        usage = record.completion.usage
        line["model"] = record.completion.model.card.id
        if record.completion.ledger is not None:
            line["nodes"] = record.completion.ledger.peers
        line["prompt_tokens"], line["completion_tokens"] = usage.prompt_tokens, usage.completion_tokens
    return line
