"""POST /v1/embeddings"""

from __future__ import annotations

from adapter.api.common.body import Call, validate
from adapter.api.common.pipeline import ModelEndpoint
from adapter.api.embeddings.embed import prepare_embeddings
from adapter.api.embeddings.types import EmbeddingEnvelope, read_embedding, read_envelope
from adapter.api.embeddings.upstream import UpstreamEmbeddings
from adapter.api.embeddings.work import EmbeddingWork
from adapter.generation.base import Candidate
from adapter.generation.fallback import Fallback
from adapter.generation.model_registry import ModelRegistry
from adapter.server.asgi import ASGIApp
from adapter.server.responses import Response


class EmbeddingEndpoint(ModelEndpoint[EmbeddingEnvelope, EmbeddingWork]):
    """Creates embeddings, on either lane."""

    reader = read_envelope

    def model(self, call: Call[EmbeddingEnvelope], models: ModelRegistry) -> str:
        return call.params.model

    def has_token_ids(self, params: EmbeddingEnvelope) -> bool:
        return params.has_token_ids

    async def prepare(self, call: Call[EmbeddingEnvelope], candidate: Candidate) -> EmbeddingWork:
        models = call.request.services.models
        card = models.card(candidate)
        if card.lane == "chat":
            return UpstreamEmbeddings(call.params, call.body, card)
        request = await validate(call, read_embedding)
        return await prepare_embeddings(request, models, name=card.id, size=call.size)

    async def respond(self, call: Call[EmbeddingEnvelope], fallback: Fallback[EmbeddingWork]) -> ASGIApp:
        await fallback.run_buffered(call.request.services.sessions, lambda: lambda event: None)
        return Response(await fallback.work.response(), headers=call.headers_for(fallback.work))
