"""POST /v1/messages/count_tokens"""

from __future__ import annotations

from adapter.api.common.body import Call, json_response
from adapter.api.common.pipeline import ModelEndpoint
from adapter.api.common.result import Result
from adapter.api.conversation.translate import generation_request
from adapter.api.messages.dialect import AnthropicDialect
from adapter.api.messages.response import TokenCount
from adapter.api.messages.translate import translate
from adapter.api.messages.types import CountTokensRequest
from adapter.api.messages.validation import read_count_tokens
from adapter.generation.base import Candidate
from adapter.generation.fallback import Fallback
from adapter.generation.generation_request import check_media
from adapter.generation.model_registry import ModelRegistry
from adapter.generation.prepare import render_prompt
from adapter.offload import offload_if_large
from adapter.server.asgi import ASGIApp


class CountTokensEndpoint(ModelEndpoint[CountTokensRequest, Result[TokenCount]]):
    """Counts the tokens of the prompt that the same request has for POST /v1/messages, also of one that is too long."""

    reader = read_count_tokens

    def model(self, call: Call[CountTokensRequest], models: ModelRegistry) -> str:
        return call.params.model

    async def prepare(self, call: Call[CountTokensRequest], candidate: Candidate) -> Result[TokenCount]:
        translated = await offload_if_large(call.size, translate, call.params)
        call.request.record.dialect = AnthropicDialect(translated.places)
        model = await call.request.services.models.get(candidate.model)
        request = generation_request(translated.request, effort_is_hint=True)
        check_media(request.media, ())
        if request.tools.tools:
            model.check_tools()
        _, tokens = await render_prompt(request.conversation, model, size=call.size, settings=call.generation_settings)
        count = TokenCount(len(tokens))
        return Result(model.card, lambda: count)

    async def respond(self, call: Call[CountTokensRequest], fallback: Fallback[Result[TokenCount]]) -> ASGIApp:
        work = fallback.work
        return json_response(work.build(), headers=call.headers_for(work))
