"""POST /v1/chat/completions"""

from __future__ import annotations

from functools import partial

from adapter.api.body import json_answer, read, rules_of
from adapter.api.chat.collect import Collector
from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.chat.stream import ChunkWriter, Head
from adapter.api.readers import read_request
from adapter.api.request import Request
from adapter.api.sse import HEADERS, event_stream
from adapter.api.tokenize.types import Rendered, RenderedGrammar
from adapter.config import Settings
from adapter.generation.base import Answer
from adapter.generation.chat_lane import Relay
from adapter.generation.fallback import Chain
from adapter.generation.prepare import prepare
from adapter.generation.token_lane import Completion
from adapter.offload import aside
from adapter.server.asgi import ASGIApp
from adapter.server.responses import Response, StreamingResponse
from subnet.aio import Sink


async def chat_completions(request: Request) -> ASGIApp:
    settings, models, sessions = request.parts.settings, request.parts.models, request.parts.sessions
    wanted, ignored, body = await read(request, read_request)

    async def prepared(name: str) -> Answer:
        card = models.card(name)
        if card.lane == "chat":
            return await aside(len(body), Relay, card, wanted, body)
        return await prepare(wanted, models, name=name, size=len(body), rules=rules_of(settings))

    chain = Chain(models.chain(wanted.model), prepared)
    request.record.completions = chain.answers
    await chain.ready()
    # What is unknown here may be known to a server that takes messages: it gets all.
    headers = ignored if chain.answer.card.lane == "token" else {}
    if wanted.stream:
        stream = partial(event_stream, partial(chain.run, sessions), partial(_writer, wanted, chain, settings))
        return StreamingResponse(stream, {**HEADERS, **headers})
    collector = Collector(choices=wanted.n or 1, reasoning=settings.reasoning_field)
    await chain.collect(sessions, collector.begin)
    return json_answer(collector.whole(_head(chain.answer), prompt_token_ids=_ids(wanted, chain)), headers=headers)


def _writer(wanted: ChatCompletionRequest, chain: Chain, settings: Settings, write: Sink[bytes]) -> ChunkWriter:
    answer = chain.answer
    return ChunkWriter(
        _head(answer),
        write,
        choices=wanted.n or 1,
        include_usage=wanted.include_usage,
        usage=(lambda: answer.usage) if wanted.continuous_usage else None,
        reasoning=settings.reasoning_field,
        prompt_token_ids=_ids(wanted, chain),
    )


def _head(answer: Answer) -> Head:
    return Head.new(answer.card.id, answer.fingerprint)


def _ids(wanted: ChatCompletionRequest, chain: Chain) -> list[int] | None:
    """Of the prompt, where they are wanted."""
    answer = chain.answer
    return answer.prompt.tolist() if wanted.return_token_ids and isinstance(answer, Completion) else None


async def render(request: Request) -> Response:
    """A request that could not be answered is refused as it would be there."""
    wanted, headers, body = await read(request, read_request)
    completion = await prepare(wanted, request.parts.models, size=len(body), rules=rules_of(request.parts.settings))
    return json_answer(_rendered(completion), headers=headers)


def _rendered(completion: Completion) -> Rendered:
    model, sampling, ids = completion.model, completion.sampling, completion.prompt.tolist()
    grammar, calls, tags = sampling.grammar, model.kind.calls, model.kind.tags
    assert sampling.max_tokens is not None
    return Rendered(
        model=model.card.id,
        prompt=completion.text,
        prompt_token_ids=ids,
        count=len(ids),
        max_model_len=model.card.context_length,
        max_tokens=sampling.max_tokens,
        tool_format=None if calls is None else calls.name,
        reasoning=None if tags is None else tags.name,
        grammar=None if grammar is None else RenderedGrammar(grammar.kind, grammar.text),
    )
