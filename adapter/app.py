"""Composition root: assembles the gateway from its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar.exceptions import HTTPException, NotFoundException

from adapter.api.common.access_log import AccessLog, Record
from adapter.api.common.gate import Gate
from adapter.api.common.head_check import check_head
from adapter.api.common.http_request import TARGET, Services
from adapter.api.common.paths import PathTable
from adapter.api.common.pipeline import RECORD, handlers, report_error
from adapter.api.dialects import dialect_of
from adapter.api.routes import ROUTES
from adapter.config import Settings
from adapter.counts import CountStore
from adapter.errors import AdapterError, BadRequest, ClientDisconnected, UnknownUrl, log_error
from adapter.generation.aliases import Aliases
from adapter.generation.model_registry import ModelRegistry
from adapter.lifecycle import Lifecycle
from adapter.metrics import Metrics
from adapter.server.asgi import ASGIApp, Receive, Scope, Send
from adapter.server.disconnect import cancel_on_disconnect
from adapter.server.response_writer import CLOSE, Header, writer_of
from subnet import RemoteManager, SessionManager
from subnet.artefact_cache import ArtefactCache
from subnet.budget import Budget


def build_app(
    settings: Settings,
    remote_manager: RemoteManager,
    session_manager: SessionManager,
    lifecycle: Lifecycle | None = None,
    cache: ArtefactCache | None = None,
    counts: CountStore | None = None,
) -> ASGIApp:
    """Build the gateway as an ASGI application. The caller enters and exits `remote_manager`.

    Tokenizers of nodes are kept in `cache`, if there is one. Requests are counted in `counts`, by default in memory.
    """
    models = ModelRegistry(
        remote_manager, settings.tool_formats(), _aliases(settings), settings.promised_models(), cache
    )
    services = Services(
        settings=settings,
        models=models,
        sessions=session_manager,
        remotes=remote_manager,
        lifecycle=lifecycle or Lifecycle(),
        metrics=Metrics(remote_manager, counts),
        memory=Budget("Bytes of running requests", settings.max_request_memory, settings.max_client_share),
    )
    remote_manager.compare_cards(models.digest, settings.cards())
    paths = PathTable(ROUTES)
    app = Litestar(
        handlers(ROUTES, services),
        exception_handlers={Exception: partial(_handle_exception, paths)},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    access_log = AccessLog(services.metrics, log=settings.access_log)
    return App(cast(ASGIApp, app), access_log, paths, Gate(settings), services.lifecycle)


def _aliases(settings: Settings) -> Aliases:
    return Aliases(aliases=settings.aliases, fallbacks=settings.fallbacks, default=settings.default_model)


class App:
    """Outermost ASGI layer. All requests pass through it, also those without an endpoint.

    It starts and ends the record of each request, checks its head, resolves aliases of paths, checks origins and API
    keys, and cancels the work if the client disconnects. While the gateway is draining, it lets each connection be
    closed after its response.
    """

    def __init__(self, app: ASGIApp, access: AccessLog, paths: PathTable, gate: Gate, lifecycle: Lifecycle) -> None:
        self._app = app
        self._access = access
        self._paths = paths
        self._gate = gate
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        record = self._access.start(scope)
        target = self._paths.find(scope["path"])
        record.endpoint = target.endpoint or record.endpoint
        record.dialect = dialect_of(target, scope)
        scope.update({RECORD: record, TARGET: target, "path": target.path})
        writer = writer_of(scope)
        cors_headers = self._gate.response_headers(scope["headers"])
        writer.add_headers(lambda status: [*record.start_response(status), *cors_headers, *self._closing()])
        try:
            with suppress(ClientDisconnected):
                await cancel_on_disconnect(writer, self._respond(scope, receive, send))
        finally:
            self._access.finish(scope, record)
        return None

    def _closing(self) -> Sequence[Header]:
        return (CLOSE,) if self._lifecycle.draining else ()

    def error_headers(self, headers: Iterable[Header]) -> list[Header]:
        """Return the headers of the server's own error responses, to requests with `headers`."""
        return self._gate.response_headers(headers)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        try:
            check_head(scope)
            app = self._gate.check(scope, scope[TARGET]) or app
        except AdapterError as error:
            app = report_error(error, scope[RECORD])
        await app(scope, receive, send)


def _handle_exception(
    paths: PathTable, request: LitestarRequest[Any, Any, Any], error: Exception
) -> LitestarResponse[bytes]:
    """Return the response for an error outside of the endpoints (no such URL) or after a response has started."""
    if isinstance(error, NotFoundException):
        error = _unknown_url(request.method, _record(request).path, paths)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        # Errors of Litestar itself, such as an invalid Host header.
        error = BadRequest(f"{error.detail}.", code="invalid_http")
    log_error(error)
    response, body = _record(request).report(error)
    return LitestarResponse(
        body, status_code=response.status, headers=dict(response.headers), media_type="application/json"
    )


def _unknown_url(method: str, path: str, paths: PathTable) -> UnknownUrl:
    meant = paths.suggest(path)
    hint = f". Did you mean {meant}?" if meant is not None else ""
    return UnknownUrl(f"Invalid URL ({method} {path}){hint}")


def _record(request: LitestarRequest[Any, Any, Any]) -> Record:
    record: Record = cast(Scope, request.scope)[RECORD]
    return record
