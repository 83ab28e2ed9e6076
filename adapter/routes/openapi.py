"""GET /openapi.json: made from the same Structs that requests are read into and answers are written from."""

from __future__ import annotations

from typing import Any

import msgspec

from adapter.request import Request
from adapter.response import Response
from adapter.routes.answers import json_answer
from adapter.schema.chunks import ChatCompletionChunk
from adapter.schema.health import Health, NodeTable
from adapter.schema.requests import ChatCompletionRequest
from adapter.schema.responses import ChatCompletion, ErrorResponse, ModelList, ModelObject
from subnet.version import VERSION

_REASONS = {
    400: "The request is wrong; `param` names the place.",
    404: "There is no such model.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    500: "The gateway has an error.",
    502: "The nodes refuse this gateway.",
    503: "Nobody can answer now; Retry-After says when to try again.",
    504: "The model did not answer in time.",
}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. `stream` is the type of the events of its streamed answer."""

    method: str
    path: str
    id: str
    summary: str
    request: type | None = None
    answer: type | None = None
    stream: type | None = None
    errors: tuple[int, ...] = (500,)
    media: str = "application/json"


OPERATIONS = (
    Operation(
        method="post",
        path="/v1/chat/completions",
        id="createChatCompletion",
        summary="Answer a conversation",
        request=ChatCompletionRequest,
        answer=ChatCompletion,
        stream=ChatCompletionChunk,
        errors=(400, 404, 408, 413, 500, 502, 503, 504),
    ),
    Operation(method="get", path="/v1/models", id="listModels", summary="The models served now", answer=ModelList),
    Operation(
        method="get",
        path="/v1/models/{model}",
        id="retrieveModel",
        summary="One model; its id may contain slashes",
        answer=ModelObject,
        errors=(404, 500, 503),
    ),
    Operation(method="get", path="/healthz", id="healthz", summary="Whether the gateway lives", answer=Health),
    Operation(
        method="get",
        path="/readyz",
        id="readyz",
        summary="Whether some node serves some model",
        answer=Health,
        errors=(500, 503),
    ),
    Operation(method="get", path="/nodes", id="listNodes", summary="The live table of nodes", answer=NodeTable),
    Operation(
        method="get", path="/metrics", id="metrics", summary="Counts, in Prometheus' text form", media="text/plain"
    ),
    Operation(method="get", path="/openapi.json", id="openapi", summary="This document"),
)


async def openapi_document(request: Request) -> Response:
    return json_answer(document())


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = {kind for one in OPERATIONS for kind in (one.request, one.answer, one.stream) if kind} | {ErrorResponse}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    references, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    named = dict(zip(ordered, references, strict=True))
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one, named)
    info = {"title": "adapter", "version": VERSION, "summary": "Chat with the models of a subnet."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operation(one: Operation, named: dict[type, dict[str, Any]]) -> dict[str, Any]:
    plain = {"type": "object" if one.media == "application/json" else "string"}
    content = {one.media: {"schema": named[one.answer] if one.answer else plain}}
    if one.stream:
        content["text/event-stream"] = {"schema": named[one.stream]}
    failure = {"application/json": {"schema": named[ErrorResponse]}}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    responses |= {str(status): {"description": _REASONS[status], "content": failure} for status in one.errors}
    found: dict[str, Any] = {"operationId": one.id, "summary": one.summary, "responses": responses}
    if one.request:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": named[one.request]}}}
    if "{model}" in one.path:
        found["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    return found
