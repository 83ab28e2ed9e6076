"""Request pipeline between the HTTP server and the endpoints; every request passes through it.

check origin and key (gate.py) -> read and validate -> resolve the model -> prepare -> run -> record metrics and
access log

Endpoints whose requests name a model subclass `ModelEndpoint`, so that aliases, fallbacks, errors, headers, metrics and
the access log work the same for all of them. The last step is done when a request ends; see access_log.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Generic, TypeVar

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler

from adapter.api.common.access_log import Record
from adapter.api.common.body import Call, read
from adapter.api.common.event_stream import EventStream, StreamedAnswer
from adapter.api.common.http_request import Endpoint, Request, Services
from adapter.api.common.readers import Reader
from adapter.errors import ErrorResponse, WrongMethod, log_error
from adapter.generation.base import Candidate, Work
from adapter.generation.fallback import Fallback
from adapter.generation.model_registry import ModelRegistry
from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.responses import Response

R = TypeVar("R", bound=msgspec.Struct)
W = TypeVar("W", bound=Work)

RECORD = "adapter.record"
"""Key of the request's Record in the ASGI scope."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint: its URL, its handler, and its description in the OpenAPI document.

    `path` may end with a name in braces, which matches the rest of a path. `open`: no API key is required. `request`,
    `response`, `stream` (the events of a streamed response) and `error` are types; `errors` are the HTTP statuses of
    errors.
    """

    method: str
    path: str
    endpoint: Endpoint
    id: str
    summary: str
    request: type | None = None
    response: type | None = None
    stream: type | UnionType | None = None
    errors: tuple[int, ...] = (500,)
    error: type = ErrorResponse
    media: str = "application/json"
    open: bool = False

    @property
    def mount(self) -> str:
        """Fixed part of the path, without a name in braces."""
        return self.path.partition("/{")[0]


class ModelEndpoint(ABC, Generic[R, W]):
    """Base class of endpoints whose requests name a model. `reader` reads the requests."""

    reader: Reader[R]

    async def __call__(self, request: Request) -> ASGIApp:
        call = await read(request, self.reader)
        models = request.services.models
        requested = self.model(call, models)
        candidates = models.candidates(requested)
        if self.has_token_ids(call.params):
            # They mean something else to another model.
            candidates = candidates[:1]
        settings = request.services.settings
        continue_text = partial(self.prepare_continuation, call) if settings.fallback_continues else None
        fallback = Fallback(
            candidates,
            partial(self.prepare, call),
            continue_text,
            requested=requested,
            may_bound=settings.max_tokens_overflow == "bound",
        )
        request.record.works = fallback.works
        return await self.answer(call, fallback)

    async def answer(self, call: Call[R], fallback: Fallback[W]) -> ASGIApp:
        """Prepare and run the work, and return the response."""
        await fallback.prepare()
        return await self.respond(call, fallback)

    @abstractmethod
    def model(self, call: Call[R], models: ModelRegistry) -> str:
        """Return the name of the model that the client requested."""

    def has_token_ids(self, params: R) -> bool:
        """Return whether the request contains token ids. It has no fallbacks then."""
        return False

    @abstractmethod
    async def prepare(self, call: Call[R], candidate: Candidate) -> W:
        """Return the work for a model to do. Raises the error that the client gets if no fallback succeeds either."""

    async def prepare_continuation(self, call: Call[R], candidate: Candidate, text: str, tokens: int) -> W | None:
        """Return the work of continuing `text`, the first `tokens` tokens of an answer; None if it is not possible."""
        return None

    @abstractmethod
    async def respond(self, call: Call[R], fallback: Fallback[W]) -> ASGIApp:
        """Run the prepared work and return the response."""


class StreamingEndpoint(ModelEndpoint[R, W]):
    """Base class of endpoints whose answers can be streamed."""

    async def answer(self, call: Call[R], fallback: Fallback[W]) -> ASGIApp:
        if not self.is_streamed(call.params):
            return await super().answer(call, fallback)
        request = call.request
        prepare = partial(self._prepare_stream, call, fallback)
        return EventStream(request.record, prepare, request.services.settings.sse_keep_alive, call.headers)

    async def _prepare_stream(self, call: Call[R], fallback: Fallback[W]) -> StreamedAnswer:
        await fallback.prepare()
        return self.stream(call, fallback)

    @abstractmethod
    def is_streamed(self, params: R) -> bool:
        """Return whether the answer is to be streamed, by `stream` instead of `respond`."""

    @abstractmethod
    def stream(self, call: Call[R], fallback: Fallback[W]) -> StreamedAnswer:
        """Return the answer to stream. It must not refer to `call`, which would stay in memory for the whole stream."""


def handlers(routes: Sequence[Route], services: Services) -> list[ASGIRouteHandler]:
    """Return one Litestar handler for each path.

    They are ASGI handlers, as Litestar's other handlers parse requests for arguments that these endpoints do not have,
    which costs more than the endpoints themselves.
    """
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.mount, {})[route.method] = route
    mounts = {route.mount for route in routes if route.path != route.mount}
    return [_handler(path, path in mounts, methods, services) for path, methods in paths.items()]


def _handler(path: str, is_mount: bool, methods: Mapping[str, Route], services: Services) -> ASGIRouteHandler:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, services, scope[RECORD])
        try:
            response = await _find_endpoint(request, methods)(request)
            await response(scope, receive, send)
        except Exception as error:
            if request.record.status is not None:
                raise
            await report_error(error, request.record)(scope, receive, send)
        finally:
            request.hold(0)

    return asgi(path, is_mount=is_mount, copy_scope=False)(handle)


def report_error(error: Exception, record: Record) -> Response:
    """Log and record an error that ends a request, and return the response to it."""
    log_error(error)
    response, body = record.report(error)
    return Response(body, status=response.status, headers=response.headers)


def _find_endpoint(request: Request, methods: Mapping[str, Route]) -> Endpoint:
    """Return the endpoint for the method of a request; for OPTIONS, one that lists the methods. Raises WrongMethod."""
    route = methods.get(request.method)
    if route is not None:
        return route.endpoint
    head = ["HEAD"] if "GET" in methods else []
    allowed = ", ".join([*head, *methods, "OPTIONS"])
    if request.method == "OPTIONS":
        return _options(allowed)
    raise WrongMethod(f"Invalid method for URL ({request.method} {request.path})", allowed)


def _options(allowed: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        return Response(status=204, headers={"allow": allowed}, media_type=None)

    return answer
