"""The endpoints: thin handlers."""

from __future__ import annotations

from adapter.routes.chat import chat_completions
from adapter.routes.health import healthz, list_nodes, readyz
from adapter.routes.metrics import show_metrics
from adapter.routes.models import list_models, retrieve_model
from adapter.routes.openapi import openapi_document

HANDLERS = (chat_completions, list_models, retrieve_model, healthz, readyz, list_nodes, show_metrics, openapi_document)

__all__ = ["HANDLERS"]
