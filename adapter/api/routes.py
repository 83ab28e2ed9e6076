"""Table of all endpoints: URLs, handlers, and descriptions for the OpenAPI document."""

from __future__ import annotations

from adapter.api.chat.endpoint import ChatEndpoint, RenderEndpoint
from adapter.api.chat.response import ChatCompletion, ChatCompletionChunk, Rendered
from adapter.api.common.body import json_response
from adapter.api.common.http_request import Request
from adapter.api.common.pipeline import Route
from adapter.api.completions.endpoint import CompletionEndpoint
from adapter.api.completions.types import CompletionRequest, TextCompletion
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.dialects import show_models
from adapter.api.embeddings.endpoint import EmbeddingEndpoint
from adapter.api.embeddings.types import EmbeddingList, EmbeddingRequest
from adapter.api.messages.count_tokens import CountTokensEndpoint
from adapter.api.messages.endpoint import MessagesEndpoint
from adapter.api.messages.response import ErrorMessage, Message, StreamEvent, TokenCount
from adapter.api.messages.types import CountTokensRequest, MessagesRequest
from adapter.api.openapi import document
from adapter.api.operator.health import healthz, list_nodes, readyz, show_metrics, show_version
from adapter.api.operator.home import home
from adapter.api.operator.types import Health, Home, ModelList, ModelObject, NodeTable, Version
from adapter.api.tokenize.endpoint import DetokenizeEndpoint, TokenizeEndpoint
from adapter.api.tokenize.types import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from adapter.server.responses import Response

# Error statuses of endpoints that need a model, and of those that also need its nodes.
_PREPARED = (400, 401, 404, 408, 413, 429, 500, 503)
_RUN = (*_PREPARED, 502, 504)


async def openapi_document(request: Request) -> Response:
    """Handle GET /openapi.json."""
    return json_response(document(ROUTES))


ROUTES = (
    Route(
        method="POST",
        path="/v1/chat/completions",
        endpoint=ChatEndpoint(),
        id="createChatCompletion",
        summary="Create a chat completion",
        request=ChatCompletionRequest,
        response=ChatCompletion,
        stream=ChatCompletionChunk,
        errors=_RUN,
    ),
    Route(
        method="POST",
        path="/v1/chat/completions/render",
        endpoint=RenderEndpoint(),
        id="renderChatCompletion",
        summary="Render the prompt of a chat completion without generating",
        request=ChatCompletionRequest,
        response=Rendered,
        errors=_PREPARED,
    ),
    Route(
        method="POST",
        path="/v1/messages",
        endpoint=MessagesEndpoint(),
        id="createMessage",
        summary="Create a message, as at Anthropic",
        request=MessagesRequest,
        response=Message,
        stream=StreamEvent,
        errors=_RUN,
        error=ErrorMessage,
    ),
    Route(
        method="POST",
        path="/v1/messages/count_tokens",
        endpoint=CountTokensEndpoint(),
        id="countMessageTokens",
        summary="Count the tokens of a message's prompt, as at Anthropic",
        request=CountTokensRequest,
        response=TokenCount,
        errors=_PREPARED,
        error=ErrorMessage,
    ),
    Route(
        method="POST",
        path="/v1/completions",
        endpoint=CompletionEndpoint(),
        id="createCompletion",
        summary="Create a completion",
        request=CompletionRequest,
        response=TextCompletion,
        stream=TextCompletion,
        errors=_RUN,
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        endpoint=EmbeddingEndpoint(),
        id="createEmbedding",
        summary="Create embeddings",
        request=EmbeddingRequest,
        response=EmbeddingList,
        errors=_RUN,
    ),
    Route(
        method="POST",
        path="/tokenize",
        endpoint=TokenizeEndpoint(),
        id="tokenize",
        summary="Tokenize text or messages",
        request=TokenizeRequest,
        response=Tokenized,
        errors=_PREPARED,
    ),
    Route(
        method="POST",
        path="/detokenize",
        endpoint=DetokenizeEndpoint(),
        id="detokenize",
        summary="Convert token ids to text",
        request=DetokenizeRequest,
        response=Detokenized,
        errors=_PREPARED,
    ),
    Route(
        method="GET",
        path="/",
        endpoint=home,
        id="home",
        open=True,
        summary="Name, version, models and links; HTML for browsers",
        response=Home,
    ),
    Route(
        method="GET",
        path="/v1/models",
        endpoint=show_models,
        id="listModels",
        summary="List the available models",
        response=ModelList,
        errors=(401, 500),
    ),
    Route(
        method="GET",
        path="/v1/models/{model}",
        endpoint=show_models,
        id="retrieveModel",
        summary="Retrieve a model; its id may contain slashes",
        response=ModelObject,
        errors=(401, 404, 500, 503),
    ),
    Route(
        method="GET",
        path="/healthz",
        endpoint=healthz,
        id="healthz",
        open=True,
        summary="Liveness check",
        response=Health,
    ),
    Route(
        method="GET",
        path="/health",
        endpoint=healthz,
        id="health",
        open=True,
        summary="Liveness check, as at vLLM, SGLang and llama.cpp",
        response=Health,
    ),
    Route(
        method="GET",
        path="/ping",
        endpoint=healthz,
        id="ping",
        open=True,
        summary="Liveness check, as at SageMaker",
        response=Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        endpoint=readyz,
        id="readyz",
        open=True,
        summary="Readiness check: at least one model is available",
        response=Health,
        errors=(500, 503),
    ),
    Route(
        method="GET",
        path="/version",
        endpoint=show_version,
        id="version",
        summary="Version of the gateway",
        response=Version,
        errors=(401, 500),
    ),
    Route(
        method="GET",
        path="/nodes",
        endpoint=list_nodes,
        id="listNodes",
        summary="List the nodes and their state",
        response=NodeTable,
        errors=(401, 500),
    ),
    Route(
        method="GET",
        path="/metrics",
        endpoint=show_metrics,
        id="metrics",
        summary="Metrics in Prometheus text format",
        media="text/plain",
        errors=(401, 500),
    ),
    Route(
        method="GET",
        path="/openapi.json",
        endpoint=openapi_document,
        id="openapi",
        summary="This OpenAPI document",
        errors=(401, 500),
    ),
)
