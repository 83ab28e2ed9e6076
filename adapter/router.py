"""Which endpoint answers which path and method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from adapter.asgi import ASGIApp
from adapter.errors import UnknownUrl, WrongMethod
from adapter.request import Request
from adapter.response import Response

Endpoint = Callable[[Request], Awaitable[ASGIApp]]
"""Answers a request with what can send the answer."""


class Route(msgspec.Struct, frozen=True):
    """A `path` that ends with a slash stands for all below it."""

    method: str
    path: str
    endpoint: Endpoint


class Router:
    """Answers OPTIONS itself, with the methods that a path has."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._paths: dict[str, dict[str, Endpoint]] = {}
        for route in routes:
            self._paths.setdefault(route.path, {})[route.method] = route.endpoint
        self._trees = [path for path in self._paths if path.endswith("/")]

    def find(self, request: Request) -> Endpoint:
        """Raises UnknownUrl and WrongMethod."""
        endpoints = self._paths.get(request.path) or self._near(request)
        endpoint = endpoints.get(request.method)
        if endpoint is not None:
            return endpoint
        allowed = _allowed(endpoints)
        if request.method == "OPTIONS":
            return _options(allowed)
        raise WrongMethod(f"Not allowed to {request.method} on {request.path}", allowed)

    def _near(self, request: Request) -> Mapping[str, Endpoint]:
        """Of a path with a slash too many, or below a tree."""
        path = request.path.rstrip("/")
        tree = next((tree for tree in self._trees if path.startswith(tree)), path)
        if tree not in self._paths:
            raise UnknownUrl(f"Invalid URL ({request.method} {request.path})")
        return self._paths[tree]


def _allowed(endpoints: Mapping[str, Endpoint]) -> str:
    head = ["HEAD"] if "GET" in endpoints else []
    return ", ".join([*head, *endpoints, "OPTIONS"])


def _options(allowed: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        return Response(status=204, headers={"allow": allowed}, media_type=None)

    return answer
