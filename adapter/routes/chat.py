"""POST /v1/chat/completions"""

from __future__ import annotations

from functools import partial

from adapter.answer import Answer
from adapter.chain import Chain
from adapter.chunks import ChunkWriter, Head
from adapter.collector import Collector
from adapter.completion import Completion
from adapter.event_stream import HEADERS, event_stream
from adapter.http.asgi import ASGIApp
from adapter.http.push import PushedResponse
from adapter.http.request import Request
from adapter.preparation import prepare
from adapter.relay import Relay
from adapter.routes.answers import json_answer, read, rules_of
from adapter.schema.reading import read_request


async def chat_completions(request: Request) -> ASGIApp:
    settings, models, sessions = request.parts.settings, request.parts.models, request.parts.sessions
    wanted, ignored, body = await read(request, read_request)

    async def prepared(name: str) -> Answer:
        card = models.card(name)
        if card.lane == "chat":
            return Relay(card, wanted, body)
        return await prepare(wanted, models, name=name, size=len(body), rules=rules_of(settings))

    chain = Chain(models.chain(wanted.model), prepared)
    request.record.completions = chain.answers
    await chain.ready()
    # What is unknown here may be known to a server that takes messages: it gets all.
    headers = ignored if chain.answer.card.lane == "token" else {}
    run, choices = partial(chain.run, sessions), wanted.n or 1
    if wanted.stream:

        def writer() -> ChunkWriter:
            return ChunkWriter(
                _head(chain.answer),
                choices=choices,
                include_usage=wanted.include_usage,
                usage=(lambda: chain.answer.usage) if wanted.continuous_usage else None,
                reasoning=settings.reasoning_field,
                prompt_token_ids=_ids(chain.answer) if wanted.return_token_ids else None,
            )

        return PushedResponse(partial(event_stream, run, writer), {**HEADERS, **headers})
    collector = Collector(choices=choices, reasoning=settings.reasoning_field)
    await run(collector.take)
    ids = _ids(chain.answer) if wanted.return_token_ids else None
    return json_answer(collector.whole(_head(chain.answer), prompt_token_ids=ids), headers=headers)


def _head(answer: Answer) -> Head:
    return Head.new(answer.card.id, answer.fingerprint)


def _ids(answer: Answer) -> list[int] | None:
    return answer.prompt.tolist() if isinstance(answer, Completion) else None
