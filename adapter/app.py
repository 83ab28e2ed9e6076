"""The composition root of the gateway."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException, NotFoundException

from adapter.api.common.access_log import Access, Record
from adapter.api.common.http_request import Services
from adapter.api.common.pipeline import RECORD, handlers
from adapter.api.routes import ROUTES
from adapter.auth.keys import Keys
from adapter.config import Settings
from adapter.errors import BadRequest, ClientGone, UnknownUrl, answer_to, report
from adapter.generation.aliases import Aliases
from adapter.generation.model_registry import ModelRegistry
from adapter.lifecycle import Lifecycle
from adapter.metrics import Metrics
from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.disconnect import cancel_on_disconnect
from adapter.server.response_writer import writer_of
from subnet import RemoteManager, SessionManager


def build_app(
    settings: Settings,
    remote_manager: RemoteManager,
    session_manager: SessionManager,
    lifecycle: Lifecycle | None = None,
) -> ASGIApp:
    """The gateway as an ASGI application. Entering and leaving `remote_manager` is the caller's."""
    services = Services(
        settings=settings,
        keys=Keys(settings.api_keys),
        models=ModelRegistry(remote_manager, settings.tool_formats(), _names(settings)),
        sessions=session_manager,
        remotes=remote_manager,
        lifecycle=lifecycle or Lifecycle(),
        metrics=Metrics(remote_manager),
    )
    app = Litestar(
        handlers(ROUTES, services),
        exception_handlers={Exception: _unanswered},
        cors_config=_cors(settings.cors_origins),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return App(cast(ASGIApp, app), Access(services.metrics, log=settings.access_log))


def _names(settings: Settings) -> Aliases:
    return Aliases(aliases=settings.aliases, fallbacks=settings.fallbacks, default=settings.default_model)


class App:
    """The outermost layer: all requests pass through it, also those that no endpoint answers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        record = self._access.begun(scope)
        scope[RECORD] = record
        writer = writer_of(scope)
        writer.add_headers(record.answered)
        try:
            with suppress(ClientGone):
                await cancel_on_disconnect(writer, self._app(scope, receive, send))
        finally:
            self._access.ended(scope, record)
        return None


def _cors(origins: Iterable[str]) -> CORSConfig | None:
    origins = list(origins)
    return CORSConfig(allow_origins=origins, expose_headers=["x-request-id"]) if origins else None


def _unanswered(request: LitestarRequest[Any, Any, Any], error: Exception) -> LitestarResponse[bytes]:
    """What happens outside of the endpoints: there is none, or one failed after it had begun to answer."""
    if isinstance(error, NotFoundException):
        error = UnknownUrl(f"Invalid URL ({request.method} {_record(request).path})")
    elif isinstance(error, HTTPException) and error.status_code < 500:
        # Litestar's own refusals, such as that of an invalid Host header.
        error = BadRequest(f"{error.detail}.")
    report(error)
    answer = answer_to(error)
    return LitestarResponse(
        answer.body, status_code=answer.status, headers=dict(answer.headers), media_type="application/json"
    )


def _record(request: LitestarRequest[Any, Any, Any]) -> Record:
    record: Record = cast(Scope, request.scope)[RECORD]
    return record
