"""POST /tokenize and POST /detokenize"""

from __future__ import annotations

from adapter.api.common.body import Call, large_json_response
from adapter.api.common.pipeline import ModelEndpoint
from adapter.api.common.result import Result
from adapter.api.tokenize.tokenize import detokenize, only_model, tokenize
from adapter.api.tokenize.types import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    read_detokenize,
    read_tokenize,
)
from adapter.generation.base import Candidate
from adapter.generation.fallback import Fallback
from adapter.generation.model_registry import ModelRegistry
from adapter.server.asgi import ASGIApp


class TokenizeEndpoint(ModelEndpoint[TokenizeRequest, Result[Tokenized]]):
    reader = read_tokenize

    def model(self, call: Call[TokenizeRequest], models: ModelRegistry) -> str:
        return call.params.model or only_model(models)

    async def prepare(self, call: Call[TokenizeRequest], candidate: Candidate) -> Result[Tokenized]:
        return await tokenize(
            call.params,
            call.request.services.models,
            name=candidate.model,
            size=call.size,
            settings=call.generation_settings,
        )

    async def respond(self, call: Call[TokenizeRequest], fallback: Fallback[Result[Tokenized]]) -> ASGIApp:
        work = fallback.work
        return await large_json_response(work.build, work.size, headers=call.headers_for(work))


class DetokenizeEndpoint(ModelEndpoint[DetokenizeRequest, Result[Detokenized]]):
    reader = read_detokenize

    def model(self, call: Call[DetokenizeRequest], models: ModelRegistry) -> str:
        return call.params.model or only_model(models)

    def has_token_ids(self, params: DetokenizeRequest) -> bool:
        return True

    async def prepare(self, call: Call[DetokenizeRequest], candidate: Candidate) -> Result[Detokenized]:
        return await detokenize(call.params, call.request.services.models, name=candidate.model, size=call.size)

    async def respond(self, call: Call[DetokenizeRequest], fallback: Fallback[Result[Detokenized]]) -> ASGIApp:
        work = fallback.work
        return await large_json_response(work.build, work.size, headers=call.headers_for(work))
