"""POST /v1/embeddings"""

from __future__ import annotations

import msgspec

from adapter.api.common.body import Call
from adapter.api.common.inputs import has_token_ids
from adapter.api.common.pipeline import ModelEndpoint
from adapter.api.embeddings.embed import Embeddings, prepare_embeddings
from adapter.api.embeddings.types import EmbeddingRequest, read_embedding
from adapter.generation.base import Candidate
from adapter.generation.fallback import Fallback
from adapter.generation.model_registry import ModelRegistry
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from adapter.server.asgi import ASGIApp
from adapter.server.responses import Response

# From this number of vectors on, encoding them takes so long that it is done in a thread.
_OFFLOAD_VECTORS = 64


class EmbeddingEndpoint(ModelEndpoint[EmbeddingRequest, Embeddings]):
    """Creates embeddings."""

    reader = read_embedding

    def model(self, call: Call[EmbeddingRequest], models: ModelRegistry) -> str:
        return call.params.model

    def has_token_ids(self, params: EmbeddingRequest) -> bool:
        return has_token_ids(params.input)

    async def prepare(self, call: Call[EmbeddingRequest], candidate: Candidate) -> Embeddings:
        return await prepare_embeddings(call.params, call.request.services.models, name=candidate.model, size=call.size)

    async def respond(self, call: Call[EmbeddingRequest], fallback: Fallback[Embeddings]) -> ASGIApp:
        await fallback.run_buffered(call.request.services.sessions, lambda: lambda event: None)
        embeddings = await fallback.work.response()
        body = await offload_if_large(
            len(embeddings.data) * OFFLOAD_THRESHOLD // _OFFLOAD_VECTORS, msgspec.json.encode, embeddings
        )
        return Response(body, headers=call.headers)
