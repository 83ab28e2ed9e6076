"""POST /v1/chat/completions"""

from __future__ import annotations

from functools import partial

from adapter.chunks import ChunkWriter, Head
from adapter.collector import Collector
from adapter.event_stream import HEADERS, event_stream
from adapter.http.asgi import ASGIApp
from adapter.http.push import PushedResponse
from adapter.http.request import Request
from adapter.preparation import prepare
from adapter.routes.answers import json_answer, read, rules_of
from adapter.schema.reading import read_request


async def chat_completions(request: Request) -> ASGIApp:
    settings, models, sessions = request.parts.settings, request.parts.models, request.parts.sessions
    wanted, headers, size = await read(request, read_request)
    completion = await prepare(wanted, models, size=size, rules=rules_of(settings))
    request.record.completions = [completion]
    head = Head.new(wanted.model, completion.model.fingerprint)
    run, choices = partial(completion.run, sessions), len(completion.choices)
    ids = completion.prompt.tolist() if wanted.return_token_ids else None
    if wanted.stream:
        chunks = ChunkWriter(
            head,
            choices=choices,
            include_usage=wanted.include_usage,
            usage=(lambda: completion.usage) if wanted.continuous_usage else None,
            reasoning=settings.reasoning_field,
            prompt_token_ids=ids,
        )
        return PushedResponse(partial(event_stream, run, chunks), {**HEADERS, **headers})
    collector = Collector(head, choices=choices, reasoning=settings.reasoning_field, prompt_token_ids=ids)
    await run(collector.take)
    return json_answer(collector.whole(), headers=headers)
