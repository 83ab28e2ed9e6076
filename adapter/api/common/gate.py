"""Checks of every request before it is routed: its origin, and its API key."""

from __future__ import annotations

from adapter.api.common.cors import Cors
from adapter.api.common.http_request import Target
from adapter.auth.keys import ApiKeys
from adapter.auth.origins import Origins
from adapter.config import Settings
from adapter.server.asgi import Scope
from adapter.server.response_writer import Header
from adapter.server.responses import Response

KEY_HEADERS = ("api-key", "x-api-key")
"""Headers with just a key: Azure's, and Anthropic's."""


class Gate:
    """Gate of one gateway. It depends on what a path refers to, never on its spelling, and unknown paths are closed."""

    def __init__(self, settings: Settings) -> None:
        self._keys = ApiKeys(settings.api_keys)
        # Whoever can send a request to a gateway without keys may use it, so that pages on this machine may, too.
        self._cors = Cors(Origins(settings.cors_origins, local=not settings.api_keys))

    def check(self, scope: Scope, target: Target) -> Response | None:
        """Return the response to a preflight; None for any other request. Raises OriginRefused and InvalidApiKey."""
        # Of repeated headers the first counts.
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        origin, is_options = headers.get("origin"), scope["method"] == "OPTIONS"
        if origin is not None:
            if is_options and "access-control-request-method" in headers:
                return self._cors.preflight(origin, headers)
            self._cors.check(origin, headers.get("host", ""))
        if not target.open and not is_options:
            self._keys.check(headers.get("authorization"), *(headers.get(name) for name in KEY_HEADERS))
        return None

    def response_headers(self, scope: Scope) -> list[Header]:
        """Return the headers of any response to the request."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        return [] if origin is None else self._cors.headers(origin.decode("latin-1"))
