"""The composition root of the gateway."""

from __future__ import annotations

from adapter.access import Access
from adapter.asgi import ASGIApp, Message, Receive, Scope, Send
from adapter.cors import Cors
from adapter.errors import answer_to, report
from adapter.life import Life
from adapter.metrics import Metrics
from adapter.models import Models
from adapter.parts import Parts
from adapter.request import Request
from adapter.response import Response
from adapter.router import Router
from adapter.routes import ROUTES
from adapter.settings import Settings
from subnet.client import RemoteManager, SessionManager


def build_app(
    settings: Settings, remote_manager: RemoteManager, session_manager: SessionManager, life: Life | None = None
) -> ASGIApp:
    """The gateway as an ASGI application. Entering and leaving `remote_manager` is the caller's."""
    parts = Parts(
        settings=settings,
        models=Models(remote_manager),
        sessions=session_manager,
        remotes=remote_manager,
        life=life or Life(),
        metrics=Metrics(remote_manager),
    )
    return App(parts, Router(ROUTES), Access(parts.metrics, log=settings.access_log), Cors(settings.cors_origins))


class App:
    """Finds the endpoint of a request, sends what it answers or the error it raises, and tells `access`."""

    def __init__(self, parts: Parts, router: Router, access: Access, cors: Cors) -> None:
        self._parts = parts
        self._router = router
        self._access = access
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        record = self._access.begun(scope)
        request = Request(scope, receive, self._parts, record)
        try:
            await self._answer(request, self._sending(request, send))
        finally:
            self._access.ended(scope, record)

    async def _answer(self, request: Request, send: Send) -> None:
        try:
            response = self._cors.preflight(request) or await self._router.find(request)(request)
            await response(request.scope, request.receive, send)
        except Exception as error:
            if request.record.status is not None:
                raise
            await _failure(error)(request.scope, request.receive, send)

    def _sending(self, request: Request, send: Send) -> Send:
        """`send` with the headers that every answer has."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.record.status = message["status"]
                message["headers"] = [*message["headers"], *request.record.headers(), *self._cors.headers(request)]
            await send(message)

        return sending


def _failure(error: Exception) -> Response:
    report(error)
    answer = answer_to(error)
    return Response(answer.body, status=answer.status, headers=answer.headers)
