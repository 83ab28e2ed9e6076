"""POST /v1/chat/completions and POST /v1/chat/completions/render"""

from __future__ import annotations

from functools import partial

from adapter.api.chat.collect import Collector
from adapter.api.chat.request import ChatEnvelope
from adapter.api.chat.response import Rendered, RenderedGrammar
from adapter.api.chat.stream import ChunkWriter, ReasoningField
from adapter.api.chat.validation import read_envelope, read_request
from adapter.api.common.body import Call, large_json_response, validate
from adapter.api.common.event_stream import StreamedAnswer
from adapter.api.common.head import Head
from adapter.api.common.large_json import size_of_choice, token_list
from adapter.api.common.pipeline import ModelEndpoint
from adapter.api.conversation.endpoint import ConversationEndpoint
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.translate import generation_request
from adapter.generation.base import Candidate, Generation
from adapter.generation.chat_lane import ChatGeneration
from adapter.generation.fallback import Fallback
from adapter.generation.generation_request import GenerationRequest
from adapter.generation.model_registry import ModelRegistry
from adapter.generation.prepare import prepare
from adapter.generation.token_lane import TokenGeneration
from adapter.offload import offload_if_large
from adapter.server.asgi import ASGIApp
from subnet.aio import Sink
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds


class ChatEndpoint(ConversationEndpoint[ChatEnvelope]):
    """Creates a chat completion, streamed or not, on either lane."""

    reader = read_envelope

    def model(self, call: Call[ChatEnvelope], models: ModelRegistry) -> str:
        return call.params.model

    def has_token_ids(self, params: ChatEnvelope) -> bool:
        return params.has_token_ids

    async def generation_request(self, call: Call[ChatEnvelope]) -> GenerationRequest:
        return await offload_if_large(call.size, generation_request, await validate(call, read_request))

    async def chat_generation(
        self, call: Call[ChatEnvelope], card: ModelCard, candidate: Candidate, text: str = "", tokens: int = 0
    ) -> ChatGeneration | None:
        params = call.params
        if text and (params.n or 1) > 1:
            return None
        return ChatGeneration(
            card,
            call.body,
            size=call.size,
            choices=params.n or 1,
            key=params.routing_key,
            priority=params.priority or 0,
            prefix=text,
            prefix_tokens=tokens,
            bound=candidate.bound,
            limit=candidate.limit,
        )

    def is_streamed(self, params: ChatEnvelope) -> bool:
        return bool(params.stream)

    def stream(self, call: Call[ChatEnvelope], fallback: Fallback[Generation]) -> StreamedAnswer:
        services, params = call.request.services, call.params
        make_writer = partial(
            _writer,
            fallback,
            choices=params.n or 1,
            include_usage=params.include_usage,
            continuous_usage=params.continuous_usage,
            reasoning=services.settings.reasoning_field,
            return_token_ids=bool(params.return_token_ids),
            functions=bool(params.functions),
        )
        return StreamedAnswer(partial(fallback.run, services.sessions), make_writer, call.headers_for(fallback.work))

    async def respond(self, call: Call[ChatEnvelope], fallback: Fallback[Generation]) -> ASGIApp:
        services, params = call.request.services, call.params
        collector = Collector(
            choices=params.n or 1, reasoning=services.settings.reasoning_field, functions=bool(params.functions)
        )
        await fallback.run_buffered(services.sessions, collector.reset)
        work = fallback.work
        ids = _prompt_token_ids(work, bool(params.return_token_ids))
        build = partial(collector.build, _head(work), prompt_token_ids=None if ids is None else token_list(ids))
        size = collector.size + (0 if ids is None else size_of_choice(0, ids=len(ids)))
        return await large_json_response(build, size, headers=call.headers_for(work))


class RenderEndpoint(ModelEndpoint[ChatCompletionRequest, TokenGeneration]):
    """Renders the prompt of a chat completion. Raises the same errors as preparing the completion does."""

    reader = read_request

    def model(self, call: Call[ChatCompletionRequest], models: ModelRegistry) -> str:
        return call.params.model

    def has_token_ids(self, params: ChatCompletionRequest) -> bool:
        return params.has_token_ids

    async def prepare(self, call: Call[ChatCompletionRequest], candidate: Candidate) -> TokenGeneration:
        request = await offload_if_large(call.size, generation_request, call.params)
        return await prepare(
            request,
            call.request.services.models,
            name=candidate.model,
            size=call.size,
            settings=call.generation_settings,
            bound=candidate.bound,
        )

    async def respond(self, call: Call[ChatCompletionRequest], fallback: Fallback[TokenGeneration]) -> ASGIApp:
        work = fallback.work
        size = len(work.text) + size_of_choice(0, ids=len(work.prompt))
        return await large_json_response(partial(_rendered, work), size, headers=call.headers_for(work))


def _head(work: Generation) -> Head:
    return Head.new(work.card.id, work.fingerprint)


def _writer(
    fallback: Fallback[Generation],
    write: Sink[bytes],
    *,
    choices: int,
    include_usage: bool,
    continuous_usage: bool,
    reasoning: ReasoningField,
    return_token_ids: bool,
    functions: bool,
) -> ChunkWriter:
    work = fallback.work
    ids = _prompt_token_ids(work, return_token_ids)
    return ChunkWriter(
        _head(work),
        write,
        choices=choices,
        include_usage=include_usage,
        usage=(lambda: fallback.usage) if continuous_usage else None,
        reasoning=reasoning,
        prompt_token_ids=None if ids is None else ids.tolist(),
        functions=functions,
    )


def _prompt_token_ids(work: Generation, requested: bool) -> TokenIds | None:
    """Return the token ids of the prompt if they were requested; None otherwise, and on the chat lane."""
    return work.prompt if requested and isinstance(work, TokenGeneration) else None


def _rendered(work: TokenGeneration) -> Rendered:
    model, sampling, ids = work.model, work.sampling, work.prompt
    grammar, calls, tags = sampling.grammar, model.format.tool_format, model.format.tags
    assert sampling.max_tokens is not None
    return Rendered(
        model=model.card.id,
        prompt=work.text,
        prompt_token_ids=token_list(ids),
        count=len(ids),
        max_model_len=model.card.context_length,
        max_tokens=sampling.max_tokens,
        tool_format=None if calls is None else calls.name,
        reasoning=None if tags is None else tags.name,
        grammar=None if grammar is None else RenderedGrammar(grammar.kind, grammar.text),
    )
