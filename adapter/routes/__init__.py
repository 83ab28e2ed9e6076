"""The endpoints: thin functions of a request."""

from __future__ import annotations

from adapter.routes.chat import chat_completions
from adapter.routes.health import healthz, list_nodes, readyz
from adapter.routes.metrics import show_metrics
from adapter.routes.models import show_models
from adapter.routes.openapi import openapi_document
from adapter.routing import Route

ROUTES = (
    Route("POST", "/v1/chat/completions", chat_completions),
    Route("GET", "/v1/models", show_models, below=True),
    Route("GET", "/healthz", healthz),
    Route("GET", "/readyz", readyz),
    Route("GET", "/nodes", list_nodes),
    Route("GET", "/metrics", show_metrics),
    Route("GET", "/openapi.json", openapi_document),
)

__all__ = ["ROUTES"]
