"""The stage that every request passes, between the HTTP server and an endpoint.

authenticate -> read and validate -> resolve the model -> prepare -> run -> account

Requests that name a model are served by a `ModelEndpoint`, so that aliases, fallbacks, errors, headers, metrics and the
access log work the same on all of them; accounting is at the end of a request (access_log.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler

from adapter.api.common.body import Call, error_response, read
from adapter.api.common.http_request import Endpoint, Request, Services
from adapter.api.common.readers import Reader
from adapter.errors import WrongMethod, log_error, to_http_error
from adapter.generation.base import Work
from adapter.generation.fallback import Fallback
from adapter.generation.model_registry import ModelRegistry
from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.responses import Response

R = TypeVar("R", bound=msgspec.Struct)
W = TypeVar("W", bound=Work)

RECORD = "adapter.record"
"""The key under which a scope has the record of its request."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint: how it is called, what it does, and how the documentation describes it.

    `path` may end with a name in braces, which stands for the rest of a path. `open`: it needs no API key. `request`,
    `response` and `stream` (the events of a streamed response) are types, and `errors` the statuses of its errors.
    """

    method: str
    path: str
    endpoint: Endpoint
    id: str
    summary: str
    request: type | None = None
    response: type | None = None
    stream: type | None = None
    errors: tuple[int, ...] = (500,)
    media: str = "application/json"
    open: bool = False

    @property
    def mount(self) -> str:
        """The fixed part of the path."""
        return self.path.partition("/{")[0]


class ModelEndpoint(ABC, Generic[R, W]):
    """An endpoint whose requests are for a model. `reader` reads them."""

    reader: Reader[R]

    async def __call__(self, request: Request) -> ASGIApp:
        call = await read(request, self.reader)
        models = request.services.models
        fallback = Fallback(models.candidates(self.model(call, models)), partial(self.prepare, call))
        request.record.works = fallback.works
        await fallback.prepare()
        return await self.respond(call, fallback)

    @abstractmethod
    def model(self, call: Call[R], models: ModelRegistry) -> str:
        """Returns the name of the model that the client asks for."""

    @abstractmethod
    async def prepare(self, call: Call[R], model: str) -> W:
        """Returns the work that `model` has to do. Raises what the client gets if no fallback can do it either."""

    @abstractmethod
    async def respond(self, call: Call[R], fallback: Fallback[W]) -> ASGIApp:
        """Runs the work, and returns the response, which may run it while it is sent."""


def handlers(routes: Sequence[Route], services: Services) -> list[ASGIRouteHandler]:
    """Returns one Litestar handler for each path.

    They are ASGI handlers: Litestar's others look at a request for arguments that these endpoints do not have, which
    costs more than all that an endpoint does.
    """
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.mount, {})[route.method] = route
    below = {route.mount for route in routes if route.path != route.mount}
    return [_handler(path, path in below, methods, services) for path, methods in paths.items()]


def _handler(path: str, below: bool, methods: Mapping[str, Route], services: Services) -> ASGIRouteHandler:
    first = next(iter(methods.values()))

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, services, scope[RECORD])
        request.record.endpoint = first.mount
        try:
            if not first.open:
                services.keys.check(request.header(b"authorization"))
            response = await _endpoint(request, methods)(request)
            await response(scope, receive, send)
        except Exception as error:
            if request.record.status is not None:
                raise
            log_error(error)
            answer = to_http_error(error).error
            request.record.error, request.record.param = answer.code, answer.param
            await error_response(error)(scope, receive, send)

    return asgi(path, is_mount=below, copy_scope=False)(handle)


def _endpoint(request: Request, methods: Mapping[str, Route]) -> Endpoint:
    """Raises WrongMethod. OPTIONS is answered with the methods that the path has."""
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
