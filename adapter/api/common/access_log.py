"""Access log: when a request ends, it is counted in the metrics and written to the log as one line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

import msgspec

from adapter.api.common.dialect import OPENAI, Dialect
from adapter.errors import HttpError
from adapter.generation.base import TriedNodes, Work
from adapter.metrics import Metrics
from adapter.request_id import current_request, request_id
from adapter.server.asgi import Scope
from adapter.server.responses import encode_headers

logger = logging.getLogger("adapter.access")

_encode = msgspec.json.encode
_CLIENT_CLOSED_REQUEST = 499
# Of the places in schemas that are logged.
_MAX_PLACES = 16
# Maximum size in bytes of the header that names nodes; what exceeds it is replaced.
_MAX_HEADER = 1024
_MORE = ", ..."
# The version of OpenAI's API.
_VERSION = (b"openai-version", b"2020-10-01")


class Record(msgspec.Struct):
    """Data about one request for metrics and the access log.

    `started` is a time of perf_counter. `status` is None until the response starts. `path` is the full path, as routers
    shorten the one in the ASGI scope; `endpoint` is the path of the route. `works` has the work of each model that was
    tried. `error` is the code of the error that the request ended with, and `param` the parameter that it names.
    `nodes_left_out`: the response was started before it was known which nodes would answer. `sent_bound`: what its
    header says of the number of tokens at which the answer is bounded. `dialect` is the API in which the request was
    made.
    """

    id: str
    started: float
    path: str = ""
    status: int | None = None
    works: Sequence[Work] = ()
    endpoint: str = "other"
    error: str | None = None
    param: str | None = None
    nodes_left_out: bool = False
    sent_bound: str | None = None
    dialect: Dialect = OPENAI

    @property
    def tried_nodes(self) -> list[TriedNodes]:
        """The nodes that each answer was requested from; empty if all nodes were at capacity."""
        return [tried for work in self.works for tried in work.tried_nodes]

    def start_response(self, status: int) -> list[tuple[bytes, bytes]]:
        """Record the status of the response, and return the headers that every response has."""
        self.status = status
        milliseconds = b"%.0f" % ((perf_counter() - self.started) * 1000)
        own_id = self.id.encode()
        headers = [(b"x-request-id", own_id), (b"openai-processing-ms", milliseconds), _VERSION]
        headers += [(name, own_id) for name in self.dialect.id_headers]
        if not self.nodes_left_out:
            headers += encode_headers(self.node_headers())
        if status == 200 and (bound := self.late_bound_header()):
            self.sent_bound = bound["x-max-tokens-bounded"]
            headers += encode_headers(bound)
        return headers

    def late_bound_header(self) -> dict[str, str]:
        """Return the header that says at how many tokens the answer is bounded; empty if it is not, or was sent.

        On the chat lane, only the server's refusal of more shows that, so that it is not known before the answer, and
        of several prompts one may have been answered by then.
        """
        tokens = self.works[-1].bounded_tokens if self.works else None
        bound = None if tokens is None else str(tokens or "unknown")
        return {} if bound in (None, self.sent_bound) else {"x-max-tokens-bounded": bound}

    def node_headers(self) -> dict[str, str]:
        """Return the headers that name the nodes tried so far, as many as fit; empty if there are none."""
        tried = self.tried_nodes
        if not tried:
            return {}
        names, switches = ", ".join(_nodes(tried)), sum(len(one.nodes) - 1 for one in tried)
        if len(names) > _MAX_HEADER:
            names = names[: _MAX_HEADER - len(_MORE)].rpartition(", ")[0] + _MORE
        return {"x-subnet-nodes": names, "x-subnet-switches": str(switches)}

    def leave_out_nodes(self) -> None:
        """Leave out the headers that name nodes, as the response starts before one of them has answered."""
        self.nodes_left_out = True

    def report(self, error: Exception) -> tuple[HttpError, bytes]:
        """Record the error that the request ends with, and return the response to it and its body in the dialect."""
        response = self.dialect.http_error(error)
        self.error, self.param = response.error.code, response.error.param
        return response, self.dialect.error_body(response, self.id)


class AccessLog:
    """Access log of one gateway. `log` False: requests are only counted in the metrics."""

    def __init__(self, metrics: Metrics, *, log: bool = True) -> None:
        self._metrics = metrics
        self._log = log

    def start(self, scope: Scope) -> Record:
        """Return the record of a new request. Its id is added to everything that the current task logs from now on."""
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        record = Record(request_id(given), perf_counter(), scope["path"])
        current_request.set(record.id)
        return record

    def finish(self, scope: Scope, record: Record) -> None:
        """Count and log a request that was answered, or whose client disconnected."""
        seconds, status = perf_counter() - record.started, record.status or _CLIENT_CLOSED_REQUEST
        self._metrics.record_request(record.endpoint, status, seconds, record.works)
        if self._log and logger.isEnabledFor(logging.INFO):
            text = _encode(_line(scope, record, status, seconds)).decode()
            # Does the same as `logger.info`, which takes twice as long as it looks up the caller's line.
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
        if relaxed := record.works[-1].relaxed:
            line["relaxed"] = relaxed[:_MAX_PLACES]
        if tried := record.tried_nodes:
            line["nodes"] = [peer for one in tried for peer in one.peers]
            if replayed := sum(one.replayed_tokens for one in tried):
                line["replayed_tokens"] = replayed
            if any(one.diverged for one in tried):
                line["diverged"] = True
        line["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        line["completion_tokens"] = sum(usage.completion_tokens for usage in usages)
    return line


def _nodes(tried: Sequence[TriedNodes]) -> list[str]:
    """Return the nodes in order: of a single answer with repetitions, of several answers each node once."""
    nodes = [node for one in tried for node in one.nodes]
    return nodes if len(tried) == 1 else list(dict.fromkeys(nodes))
