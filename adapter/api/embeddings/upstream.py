"""Embeddings on the chat lane: the request and the response of a server, passed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapter.api.embeddings.types import EmbeddingEnvelope
from adapter.api.embeddings.work import EmbeddingWork
from adapter.decode.events import Event
from adapter.decode.usage import NO_USAGE, Usage
from adapter.generation.chat_lane import deep_bodies_refused
from subnet import RequestState, SessionManager
from subnet.aio import Sink
from subnet.chat import EmbeddingsRequest, EmbeddingsResponse
from subnet.node_info import ModelCard


class UpstreamEmbeddings(EmbeddingWork):
    """Embeddings by servers of the model of `card`, which get `body` as it is, except for the model."""

    def __init__(self, params: EmbeddingEnvelope, body: Mapping[str, Any], card: ModelCard) -> None:
        self._card = card
        forwarded = {name: value for name, value in body.items() if name != "model" and value is not None}
        self._request = EmbeddingsRequest(model=card.id, body=forwarded, count=params.count)
        self._response: EmbeddingsResponse | None = None

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def usage(self) -> Usage:
        count = 0 if self._response is None else self._response.prompt_tokens
        return msgspec.structs.replace(NO_USAGE, prompt_tokens=count, total_tokens=count)

    async def run(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None = None) -> None:
        """Request the embeddings. Raises the errors of PromptEvaluator.request_embeddings."""
        self._evaluator = sessions.prompt_evaluator(self._card.id, state=state)
        with deep_bodies_refused():
            self._response = await self._evaluator.request_embeddings(self._request)

    async def response(self) -> bytes:
        assert self._response is not None
        return self._response.body
