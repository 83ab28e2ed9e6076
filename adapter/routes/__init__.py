"""The endpoints: thin functions of a request."""

from __future__ import annotations

from adapter.http.routing import Route
from adapter.routes.chat import chat_completions
from adapter.routes.completions import completions
from adapter.routes.embeddings import embeddings
from adapter.routes.health import healthz, list_nodes, readyz
from adapter.routes.home import home
from adapter.routes.metrics import show_metrics
from adapter.routes.models import show_models
from adapter.routes.openapi import openapi_document
from adapter.routes.render import render
from adapter.routes.tokens import detokenize, tokenize

ROUTES = (
    Route("POST", "/v1/chat/completions", chat_completions),
    Route("POST", "/v1/chat/completions/render", render),
    Route("POST", "/v1/completions", completions),
    Route("POST", "/v1/embeddings", embeddings),
    Route("POST", "/tokenize", tokenize),
    Route("POST", "/detokenize", detokenize),
    Route("GET", "/", home),
    Route("GET", "/v1/models", show_models, below=True),
    Route("GET", "/healthz", healthz),
    Route("GET", "/readyz", readyz),
    Route("GET", "/nodes", list_nodes),
    Route("GET", "/metrics", show_metrics),
    Route("GET", "/openapi.json", openapi_document),
)

__all__ = ["ROUTES"]
