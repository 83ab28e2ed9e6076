"""What there is to ask of a gateway."""

from __future__ import annotations

import msgspec

from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.chat.response import ChatCompletion, ChatCompletionChunk, ModelList, ModelObject
from adapter.api.completions.types import CompletionRequest, TextCompletion
from adapter.api.embeddings.types import EmbeddingList, EmbeddingRequest
from adapter.api.operator.types import Health, Home, NodeTable
from adapter.api.tokenize.types import Detokenized, DetokenizeRequest, Rendered, Tokenized, TokenizeRequest

# Of what needs a model, and of what needs an answer of its nodes.
_PREPARED = (400, 401, 404, 408, 413, 500, 503)
_RUN = (*_PREPARED, 429, 502, 504)


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
        summary="Create a chat completion",
        request=ChatCompletionRequest,
        answer=ChatCompletion,
        stream=ChatCompletionChunk,
        errors=_RUN,
    ),
    Operation(
        method="post",
        path="/v1/chat/completions/render",
        id="renderChatCompletion",
        summary="Render the prompt of a chat completion without generating",
        request=ChatCompletionRequest,
        answer=Rendered,
        errors=_PREPARED,
    ),
    Operation(
        method="post",
        path="/v1/completions",
        id="createCompletion",
        summary="Create a completion",
        request=CompletionRequest,
        answer=TextCompletion,
        stream=TextCompletion,
        errors=_RUN,
    ),
    Operation(
        method="post",
        path="/v1/embeddings",
        id="createEmbedding",
        summary="Create embeddings",
        request=EmbeddingRequest,
        answer=EmbeddingList,
        errors=_RUN,
    ),
    Operation(
        method="post",
        path="/tokenize",
        id="tokenize",
        summary="Tokenize text or messages",
        request=TokenizeRequest,
        answer=Tokenized,
        errors=_PREPARED,
    ),
    Operation(
        method="post",
        path="/detokenize",
        id="detokenize",
        summary="Convert token ids to text",
        request=DetokenizeRequest,
        answer=Detokenized,
        errors=_PREPARED,
    ),
    Operation(
        method="get", path="/", id="home", summary="Name, version, models and links; HTML for browsers", answer=Home
    ),
    Operation(
        method="get",
        path="/v1/models",
        id="listModels",
        summary="List the available models",
        answer=ModelList,
        errors=(401, 500),
    ),
    Operation(
        method="get",
        path="/v1/models/{model}",
        id="retrieveModel",
        summary="Retrieve a model; its id may contain slashes",
        answer=ModelObject,
        errors=(401, 404, 500, 503),
    ),
    Operation(method="get", path="/healthz", id="healthz", summary="Liveness check", answer=Health),
    Operation(
        method="get",
        path="/readyz",
        id="readyz",
        summary="Readiness check: at least one model is available",
        answer=Health,
        errors=(500, 503),
    ),
    Operation(
        method="get",
        path="/nodes",
        id="listNodes",
        summary="List the nodes and their state",
        answer=NodeTable,
        errors=(401, 500),
    ),
    Operation(
        method="get", path="/metrics", id="metrics", summary="Metrics in Prometheus text format", media="text/plain"
    ),
    Operation(method="get", path="/openapi.json", id="openapi", summary="This OpenAPI document", errors=(401, 500)),
)
