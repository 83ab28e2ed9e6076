"""Endpoints that answer a conversation, in any dialect."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import msgspec

from adapter.api.common.body import Call
from adapter.api.common.pipeline import StreamingEndpoint
from adapter.generation.base import Candidate, Generation
from adapter.generation.chat_lane import ChatGeneration
from adapter.generation.generation_request import GenerationRequest
from adapter.generation.prepare import prepare
from subnet.node_info import ModelCard

R = TypeVar("R", bound=msgspec.Struct)


class ConversationEndpoint(StreamingEndpoint[R, Generation]):
    """Base class of endpoints that answer a conversation. A dialect translates its requests for either lane."""

    @abstractmethod
    async def generation_request(self, call: Call[R]) -> GenerationRequest:
        """Return the request for the token lane. Raises BadRequest."""

    @abstractmethod
    async def chat_generation(
        self, call: Call[R], card: ModelCard, candidate: Candidate, text: str = "", tokens: int = 0
    ) -> ChatGeneration | None:
        """Return the generation on the chat lane. With `text`, of `tokens` tokens, it continues an answer that begins
        with it; None if that is not possible. Raises BadRequest.
        """

    async def prepare(self, call: Call[R], candidate: Candidate) -> Generation:
        card = call.request.services.models.card(candidate)
        if card.lane == "chat":
            generation = await self.chat_generation(call, card, candidate)
            assert generation is not None
            return generation
        return await self._token_generation(call, card, candidate, await self.generation_request(call))

    async def prepare_continuation(
        self, call: Call[R], candidate: Candidate, text: str, tokens: int
    ) -> Generation | None:
        card = call.request.services.models.card(candidate)
        if card.lane == "chat":
            # Once the stream has begun, its header can no longer say that the answer is bounded.
            return await self.chat_generation(call, card, candidate._replace(bound=False), text, tokens)
        request = (await self.generation_request(call)).continuing(text, tokens)
        if request is None:
            return None
        limit = None if candidate.limit is None else max(1, candidate.limit - tokens)
        return await self._token_generation(call, card, candidate._replace(limit=limit), request)

    async def _token_generation(
        self, call: Call[R], card: ModelCard, candidate: Candidate, request: GenerationRequest
    ) -> Generation:
        return await prepare(
            request,
            call.request.services.models,
            name=card.id,
            size=call.size,
            settings=call.generation_settings,
            bound=candidate.bound,
            limit=candidate.limit,
        )
