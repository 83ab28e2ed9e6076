"""POST /v1/completions"""

from __future__ import annotations

from functools import partial

from adapter.api.body import json_answer, read
from adapter.api.chat.stream import Head
from adapter.api.completions.collect import TextCollector
from adapter.api.completions.prepare import prepare_text
from adapter.api.completions.stream import TextChunkWriter
from adapter.api.readers import read_completion
from adapter.api.request import Request
from adapter.api.sse import HEADERS, event_stream
from adapter.server.asgi import ASGIApp
from adapter.server.responses import StreamingResponse


async def completions(request: Request) -> ASGIApp:
    sessions = request.parts.sessions
    wanted, headers, body = await read(request, read_completion)
    answer = await prepare_text(wanted, request.parts.models, size=len(body))
    request.record.completions = answer.completions
    openings = await answer.openings(sessions)
    head = Head.new(answer.model.card.id, answer.model.fingerprint, "cmpl-")
    run = partial(answer.run, sessions)
    if wanted.stream:
        make = partial(
            TextChunkWriter,
            head,
            openings,
            choices=answer.choices,
            include_usage=wanted.include_usage,
            usage=(lambda: answer.usage) if wanted.continuous_usage else None,
        )
        stream = partial(event_stream, lambda start: run(start()), make)
        return StreamingResponse(stream, {**HEADERS, **headers})
    collector = TextCollector(
        head, openings, choices=answer.choices, kept=wanted.n or 1, logprobs=wanted.likeliest is not None
    )
    await run(collector.take)
    return json_answer(collector.whole(), headers=headers)
