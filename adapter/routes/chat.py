"""POST /v1/chat/completions"""

from __future__ import annotations

from functools import partial

from adapter.answer import Answer
from adapter.aside import aside
from adapter.chain import Chain
from adapter.chunks import ChunkWriter, Head
from adapter.collector import Collector
from adapter.completion import Completion
from adapter.event_stream import HEADERS, event_stream
from adapter.http.asgi import ASGIApp
from adapter.http.push import PushedResponse, Write
from adapter.http.request import Request
from adapter.preparation import prepare
from adapter.relay import Relay
from adapter.routes.answers import json_answer, read, rules_of
from adapter.schema.reading import read_request
from adapter.schema.requests import ChatCompletionRequest
from adapter.settings import Settings


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
        return PushedResponse(stream, {**HEADERS, **headers})
    collector = Collector(choices=wanted.n or 1, reasoning=settings.reasoning_field)
    await chain.collect(sessions, collector.begin)
    return json_answer(collector.whole(_head(chain.answer), prompt_token_ids=_ids(wanted, chain)), headers=headers)


def _writer(wanted: ChatCompletionRequest, chain: Chain, settings: Settings, write: Write) -> ChunkWriter:
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
