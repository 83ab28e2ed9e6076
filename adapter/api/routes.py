"""The endpoints: thin functions of a request."""

from __future__ import annotations

from adapter.api.chat.endpoint import chat_completions, render
from adapter.api.completions.endpoint import completions
from adapter.api.embeddings.endpoint import embeddings
from adapter.api.models import show_models
from adapter.api.openapi import openapi_document
from adapter.api.operator.health import healthz, list_nodes, readyz, show_metrics
from adapter.api.operator.home import home
from adapter.api.routing import Route
from adapter.api.tokenize.endpoint import detokenize, tokenize

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
