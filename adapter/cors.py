"""Which web pages may call (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

from collections.abc import Collection

from adapter.request import Request
from adapter.response import Headers, Response

_DAY = "86400"


class Cors:
    """Pages of `origins`, or of all where one of them is *, may call and read the request's id. No credentials that a
    browser adds by itself are taken.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = origins

    def headers(self, request: Request) -> Headers:
        """Of any answer to `request`."""
        origin = request.header(b"origin")
        if origin is None or not ("*" in self._origins or origin in self._origins):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"x-request-id"),
            (b"vary", b"origin"),
        ]

    def preflight(self, request: Request) -> Response | None:
        """What a browser is told that asks before it calls; None for another request."""
        method = request.header(b"access-control-request-method")
        if request.scope["method"] != "OPTIONS" or method is None or request.header(b"origin") is None:
            return None
        wanted = request.header(b"access-control-request-headers") or "authorization, content-type"
        allowed = {
            "access-control-allow-methods": method,
            "access-control-allow-headers": wanted,
            "access-control-max-age": _DAY,
        }
        return Response(status=204, headers=allowed, media_type=None)
