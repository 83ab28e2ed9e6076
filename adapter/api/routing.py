"""Endpoints as Litestar's handlers, with as little as may be between server and endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler

from adapter.api.request import Parts, Request
from adapter.errors import WrongMethod, answer_to, report
from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.responses import Response

RECORD = "adapter.record"
"""Where a scope has the record of its request."""

Endpoint = Callable[[Request], Awaitable[ASGIApp]]
"""Answers a request with what can send the answer."""


class Route(msgspec.Struct, frozen=True):
    """With `below`, of all paths below `path`, too."""

    method: str
    path: str
    endpoint: Endpoint
    below: bool = False


def handlers(routes: Iterable[Route], parts: Parts) -> list[ASGIRouteHandler]:
    """One for each path: Litestar's ASGI handlers, as its others look at a request for arguments that ours do not
    have, which costs more than all that an endpoint does."""
    paths: dict[tuple[str, bool], dict[str, Endpoint]] = {}
    for route in routes:
        paths.setdefault((route.path, route.below), {})[route.method] = route.endpoint
    return [_handler(path, below, endpoints, parts) for (path, below), endpoints in paths.items()]


def _handler(path: str, below: bool, endpoints: Mapping[str, Endpoint], parts: Parts) -> ASGIRouteHandler:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, parts, scope[RECORD])
        try:
            parts.keys.check(request.path, request.header(b"authorization"))
            response = await _endpoint(request, endpoints)(request)
            await response(scope, receive, send)
        except Exception as error:
            if request.record.status is not None:
                raise
            report(error)
            await failure(error)(scope, receive, send)

    return asgi(path, is_mount=below, copy_scope=False)(answer)


def _endpoint(request: Request, endpoints: Mapping[str, Endpoint]) -> Endpoint:
    """Raises WrongMethod. OPTIONS is answered with the methods that the path has."""
    endpoint = endpoints.get(request.method)
    if endpoint is not None:
        return endpoint
    head = ["HEAD"] if "GET" in endpoints else []
    allowed = ", ".join([*head, *endpoints, "OPTIONS"])
    if request.method == "OPTIONS":
        return _options(allowed)
    raise WrongMethod(f"Invalid method for URL ({request.method} {request.path})", allowed)


def _options(allowed: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        return Response(status=204, headers={"allow": allowed}, media_type=None)

    return answer


def failure(error: Exception) -> Response:
    """What a client gets for `error`."""
    answer = answer_to(error)
    return Response(answer.body, status=answer.status, headers=answer.headers)
