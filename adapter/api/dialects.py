"""The dialect of each request, found before anything about it can fail."""

from __future__ import annotations

from adapter.api.common.dialect import OPENAI, Dialect
from adapter.api.common.http_request import Request, Target
from adapter.api.messages.dialect import ANTHROPIC
from adapter.api.messages.models import show_models as show_models_to_anthropic
from adapter.api.operator.list_models import show_models as show_models_to_openai
from adapter.server.asgi import Scope
from adapter.server.responses import Response

_MESSAGES, _MODELS = "/v1/messages", "/v1/models"


def dialect_of(target: Target, scope: Scope) -> Dialect:
    """Return the dialect of a request by its path, also one that does not exist. The list of models, which has the same
    path in both, is Anthropic's for requests with the header that all of its clients send.
    """
    if _is_below(target.path, _MESSAGES):
        return ANTHROPIC
    if _is_below(target.path, _MODELS) and any(name == b"anthropic-version" for name, _ in scope["headers"]):
        return ANTHROPIC
    return OPENAI


async def show_models(request: Request) -> Response:
    """Handle GET /v1/models and GET /v1/models/{id} in either dialect."""
    if request.record.dialect is OPENAI:
        return await show_models_to_openai(request)
    return await show_models_to_anthropic(request)


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/")
