"""The composition root of the gateway."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, Response
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import ASGIApp, Method

from adapter.access import Access
from adapter.errors import UnknownUrl, WrongMethod, answer_to, report
from adapter.life import Life
from adapter.metrics import Metrics
from adapter.models import Models
from adapter.routes import HANDLERS
from adapter.settings import Settings
from subnet.client import RemoteManager, SessionManager

_METHODS: tuple[Method, ...] = ("GET", "POST", "OPTIONS")


def build_app(
    settings: Settings, remote_manager: RemoteManager, session_manager: SessionManager, life: Life | None = None
) -> ASGIApp:
    """The gateway as an ASGI application. Entering and leaving `remote_manager` is the caller's."""
    models = Models(remote_manager)
    metrics = Metrics(remote_manager)
    parts = {
        "settings": settings,
        "models": models,
        "sessions": session_manager,
        "remotes": remote_manager,
        "life": life or Life(),
        "metrics": metrics,
    }
    app = Litestar(
        HANDLERS,
        dependencies={name: _provide(part) for name, part in parts.items()},
        exception_handlers={Exception: _answer},
        cors_config=_cors(settings.cors_origins),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return Access(app, metrics, log=settings.access_log)


def _provide(part: object) -> Provide:
    return Provide(lambda: part, use_cache=True, sync_to_thread=False)


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    return CORSConfig(allow_origins=list(origins), expose_headers=["x-request-id"]) if origins else None


def _answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    ours = _ours(request, error)
    report(ours)
    answer = answer_to(ours)
    headers = dict(answer.headers)
    if isinstance(ours, WrongMethod):
        headers["allow"] = ", ".join(_allowed(request))
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/json")


def _ours(request: Request[Any, Any, Any], error: Exception) -> Exception:
    method, path = request.method, request.scope["path"]
    if isinstance(error, NotFoundException):
        return UnknownUrl(f"Invalid URL ({method} {path})")
    if isinstance(error, MethodNotAllowedException):
        return WrongMethod(f"Not allowed to {method} on {path}")
    return error


def _allowed(request: Request[Any, Any, Any]) -> list[str]:
    found = [method for method in _METHODS if _routes(request, method)]
    return ["HEAD", *found] if "GET" in found else [*found]


def _routes(request: Request[Any, Any, Any], method: Method) -> bool:
    try:
        request.app.asgi_router.handle_routing(path=request.scope["path"], method=method)
    except HTTPException:
        return False
    return True
