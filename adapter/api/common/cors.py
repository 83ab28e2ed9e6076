"""Cross-origin requests of web pages: which are served, preflights, and what pages may read (Fetch standard, CORS)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from adapter.auth.origins import Origins
from adapter.errors import OriginRefused
from adapter.server.response_writer import Header
from adapter.server.responses import Response

_EXPOSED = (
    *("openai-processing-ms", "openai-version", "retry-after", "retry-after-ms", "x-ignored-params"),
    *("x-max-tokens-bounded", "x-request-id", "x-schema-relaxed", "x-subnet-nodes", "x-subnet-switches"),
    *(f"x-ratelimit-{kind}-{unit}" for kind in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
)
# Any method may be tried: what an endpoint does not support gets a 405 that the page can read.
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_DEFAULT_HEADERS = "authorization, content-type"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_PREFLIGHT_SECONDS = "600"
_MAX_SHOWN = 200


class Cors:
    """CORS of a gateway that pages of `origins` may call."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def check(self, origin: str, host: str) -> None:
        """Raise OriginRefused unless a request from a page of `origin` to `host` may be served."""
        if not self._origins.can_send(origin, host):
            raise _refused(origin)

    def preflight(self, origin: str, headers: Mapping[str, str]) -> Response:
        """Return the response to the request that a browser sends first. Raises OriginRefused."""
        if not self._origins.can_read(origin):
            raise _refused(origin)
        names = headers.get("access-control-request-headers", "")
        found = {
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": names if _HEADER_NAMES.fullmatch(names) else _DEFAULT_HEADERS,
            "access-control-max-age": _PREFLIGHT_SECONDS,
        }
        if headers.get("access-control-request-private-network") == "true":
            # Chromium asks before a page from a public address calls a private one.
            found["access-control-allow-private-network"] = "true"
        return Response(status=204, headers=found, media_type=None)

    def headers(self, origin: str) -> list[Header]:
        """Return the headers of any response to a request from a page of `origin`."""
        if not self._origins.can_read(origin):
            return [(b"vary", b"origin")]
        allowed = "*" if self._origins.any else origin
        return [
            (b"access-control-allow-origin", allowed.encode("latin-1")),
            (b"access-control-expose-headers", ", ".join(_EXPOSED).encode()),
            (b"vary", b"origin"),
        ]


def _refused(origin: str) -> OriginRefused:
    return OriginRefused(
        f"Requests from pages of the origin '{origin[:_MAX_SHOWN]}' are not allowed. The gateway's setting"
        " 'cors_origins' allows them."
    )
