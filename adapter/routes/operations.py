"""What there is to ask of a gateway."""

from __future__ import annotations

import msgspec

from adapter.schema.chunks import ChatCompletionChunk
from adapter.schema.completions import CompletionRequest, TextCompletion
from adapter.schema.embeddings import EmbeddingList, EmbeddingRequest
from adapter.schema.health import Health, NodeTable
from adapter.schema.requests import ChatCompletionRequest
from adapter.schema.responses import ChatCompletion, ModelList, ModelObject
from adapter.schema.tokens import Detokenized, DetokenizeRequest, Rendered, Tokenized, TokenizeRequest

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
        summary="Answer a conversation",
        request=ChatCompletionRequest,
        answer=ChatCompletion,
        stream=ChatCompletionChunk,
        errors=_RUN,
    ),
    Operation(
        method="post",
        path="/v1/chat/completions/render",
        id="renderChatCompletion",
        summary="What a conversation becomes for its model, without an answer",
        request=ChatCompletionRequest,
        answer=Rendered,
        errors=_PREPARED,
    ),
    Operation(
        method="post",
        path="/v1/completions",
        id="createCompletion",
        summary="Go on from prompts",
        request=CompletionRequest,
        answer=TextCompletion,
        stream=TextCompletion,
        errors=_RUN,
    ),
    Operation(
        method="post",
        path="/v1/embeddings",
        id="createEmbedding",
        summary="Make vectors of texts",
        request=EmbeddingRequest,
        answer=EmbeddingList,
        errors=_RUN,
    ),
    Operation(
        method="post",
        path="/tokenize",
        id="tokenize",
        summary="The tokens of a text or of a conversation",
        request=TokenizeRequest,
        answer=Tokenized,
        errors=_PREPARED,
    ),
    Operation(
        method="post",
        path="/detokenize",
        id="detokenize",
        summary="The text of tokens",
        request=DetokenizeRequest,
        answer=Detokenized,
        errors=_PREPARED,
    ),
    Operation(
        method="get",
        path="/v1/models",
        id="listModels",
        summary="The models served now",
        answer=ModelList,
        errors=(401, 500),
    ),
    Operation(
        method="get",
        path="/v1/models/{model}",
        id="retrieveModel",
        summary="One model; its id may contain slashes",
        answer=ModelObject,
        errors=(401, 404, 500, 503),
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
    Operation(
        method="get",
        path="/nodes",
        id="listNodes",
        summary="The live table of nodes",
        answer=NodeTable,
        errors=(401, 500),
    ),
    Operation(
        method="get", path="/metrics", id="metrics", summary="Counts, in Prometheus' text form", media="text/plain"
    ),
    Operation(method="get", path="/openapi.json", id="openapi", summary="This document", errors=(401, 500)),
)
