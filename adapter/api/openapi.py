"""OpenAPI document, generated from the Structs that requests are read into and responses are written from."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any

import msgspec

from adapter.api.common.gate import KEY_HEADERS
from adapter.api.common.paths import ALIASES
from adapter.api.common.pipeline import Route
from subnet.version import VERSION

_REASONS = {
    400: "Invalid request; `param` names the invalid parameter.",
    401: "Missing or invalid API key.",
    404: "The model does not exist.",
    408: "Timed out waiting for the request body.",
    413: "The request body is too large.",
    429: "Rate limit of the upstream servers reached; `Retry-After` says when to retry.",
    500: "Internal server error.",
    502: "The upstream nodes rejected this gateway's credentials.",
    503: "No node is available; `Retry-After` says when to retry.",
    504: "The request timed out waiting for the model.",
}

_SECURITY: dict[str, dict[str, str]] = {
    "key": {"type": "http", "scheme": "bearer"},
    **{name: {"type": "apiKey", "in": "header", "name": name} for name in KEY_HEADERS},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `routes`."""
    types = {kind for route in routes for kind in (route.request, route.response, route.stream, route.error) if kind}
    ordered = sorted(types, key=lambda kind: getattr(kind, "__name__", str(kind)))
    references, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    named = dict(zip(ordered, references, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named)
    info = {
        "title": "adapter",
        "version": VERSION,
        "summary": "OpenAI-compatible API for the models of a subnet.",
        "description": ALIASES,
    }
    components = {"schemas": schemas, "securitySchemes": _SECURITY}
    # The empty alternative: a gateway without API keys serves everyone.
    security: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY]
    security.append({})
    return {"openapi": "3.1.0", "info": info, "security": security, "paths": paths, "components": components}


def _operation(route: Route, named: dict[type | UnionType, dict[str, Any]]) -> dict[str, Any]:
    plain = {"type": "object" if route.media == "application/json" else "string"}
    content = {route.media: {"schema": named[route.response] if route.response else plain}}
    if route.stream:
        content["text/event-stream"] = {"schema": named[route.stream]}
    failure = {"application/json": {"schema": named[route.error]}}
    responses: dict[str, Any] = {"200": {"description": "Success.", "content": content}}
    responses |= {str(status): {"description": _REASONS[status], "content": failure} for status in route.errors}
    found: dict[str, Any] = {"operationId": route.id, "summary": route.summary, "responses": responses}
    if route.request:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": named[route.request]}}}
    if "{model}" in route.path:
        found["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    return found
