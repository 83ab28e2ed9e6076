"""Checks of every request before it is routed: the host it is sent to, its origin, and its API key."""

from __future__ import annotations

from collections.abc import Iterable

from adapter.api.common.cors import Cors
from adapter.api.common.http_request import Target
from adapter.auth.clients import client_at
from adapter.auth.hosts import Hosts
from adapter.auth.keys import ApiKeys
from adapter.auth.origins import ANY, Origins, is_local_host
from adapter.config import Settings
from adapter.errors import HostRefused
from adapter.server.asgi import Scope
from adapter.server.response_writer import Header
from adapter.server.responses import Response
from subnet.budget import current_client

KEY_HEADERS = ("api-key", "x-api-key")
"""Headers with just a key: Azure's, and Anthropic's."""

_MAX_SHOWN = 200


class Gate:
    """Gate of one gateway. It depends on what a path refers to, never on its spelling, and unknown paths are closed."""

    def __init__(self, settings: Settings) -> None:
        self._keys = ApiKeys(settings.api_keys)
        # Whoever can send a request to a gateway without keys may use it, so that pages on this machine may, too.
        is_private = not settings.api_keys and is_local_host(settings.host)
        self._hosts = Hosts(settings.allowed_hosts if is_private else [ANY])
        self._cors = Cors(Origins(settings.cors_origins, local=not settings.api_keys))

    def check(self, scope: Scope, target: Target) -> Response | None:
        """Return the response to a preflight; None for any other request, whose head was checked. Sets the current
        client. Raises HostRefused, OriginRefused and InvalidApiKey.
        """
        # Of repeated headers the first counts.
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        host, origin, is_options = headers.get("host", ""), headers.get("origin"), scope["method"] == "OPTIONS"
        if not self._hosts.allows(host):
            raise _host_refused(host)
        if origin is not None:
            if is_options and "access-control-request-method" in headers:
                return self._cors.preflight(origin, headers)
            # Pages cannot set it. It knows the gateway's own name, which a proxy may hide.
            if headers.get("sec-fetch-site") != "same-origin":
                self._cors.check(origin, host)
        key = None
        if not target.open and not is_options:
            key = self._keys.check(headers.get("authorization"), *(headers.get(name) for name in KEY_HEADERS))
        client = scope["client"]
        current_client.set(key if key is not None or client is None else client_at(client[0]))
        return None

    def response_headers(self, headers: Iterable[Header]) -> list[Header]:
        """Return the headers of any response to a request with `headers`."""
        origin = next((value for name, value in headers if name == b"origin"), None)
        return [] if origin is None else self._cors.headers(origin.decode("latin-1"))


def _host_refused(host: str) -> HostRefused:
    return HostRefused(
        f"Requests for the host '{host[:_MAX_SHOWN]}' are not allowed. Without API keys, a gateway on a loopback"
        " address must be called by 'localhost' or a loopback address. The gateway's setting 'allowed_hosts' allows"
        " other names."
    )
