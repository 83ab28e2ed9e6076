"""What is noted of a request: it is counted, and one line is logged, when it is over."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

import msgspec

from adapter.generation.base import Answer
from adapter.metrics import Metrics
from adapter.request_id import current_request, request_id
from adapter.server.asgi import Scope
from subnet.client.ledger.base import Ledger

logger = logging.getLogger("adapter.api.access_log")

_NAME = logger.name.encode()
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
    completions: Sequence[Answer] = ()

    @property
    def ledgers(self) -> list[Ledger[Any]]:
        """Of what nodes were asked for: those that are full are not."""
        found = [completion.ledger for completion in self.completions]
        return [ledger for ledger in found if ledger is not None and ledger.nodes]

    def answered(self, status: int) -> list[tuple[bytes, bytes]]:
        """Now it is; what every answer tells of its request."""
        self.status = status
        milliseconds = b"%.0f" % ((perf_counter() - self.started) * 1000)
        headers = [(b"x-request-id", self.id.encode()), (b"openai-processing-ms", milliseconds), _VERSION]
        if ledgers := self.ledgers:
            headers.append((b"x-subnet-nodes", ", ".join(_asked(ledgers)).encode()))
            headers.append((b"x-subnet-switches", b"%d" % sum(len(ledger.nodes) - 1 for ledger in ledgers)))
        return headers


class _Lines:
    """Those of one turn of the event loop go to standard error in one write, in the form that logging gives to all
    others, which takes ten times as long.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def add(self, line: bytes) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._write)
        self._lines.append(line)

    def _write(self) -> None:
        text = b"".join([b"INFO %b: %b\n" % (_NAME, line) for line in self._lines])
        self._lines.clear()
        # Nobody reads, the disk is full, or there is no such stream (2>&-): no reason to answer nobody.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()


class Access:
    """Of one gateway. `log`: write the lines."""

    def __init__(self, metrics: Metrics, *, log: bool = True) -> None:
        self._metrics = metrics
        self._log = log
        self._lines = _Lines()

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
            self._lines.add(_encode(_line(scope, record, status, seconds)))


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
        line["model"] = record.completions[-1].card.id
        if ledgers := record.ledgers:
            line["nodes"] = [peer for ledger in ledgers for peer in ledger.peers]
        line["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        line["completion_tokens"] = sum(usage.completion_tokens for usage in usages)
    return line


def _asked(ledgers: Sequence[Ledger[Any]]) -> list[str]:
    """The nodes in order: of a single answer each time that one was asked, of several once."""
    nodes = [node for ledger in ledgers for node in ledger.nodes]
    return nodes if len(ledgers) == 1 else list(dict.fromkeys(nodes))
