"""POST /v1/completions"""

from __future__ import annotations

from functools import partial

from adapter.asgi import ASGIApp
from adapter.aside import aside
from adapter.chunks import Head
from adapter.connected import while_connected
from adapter.event_stream import HEADERS, event_stream
from adapter.push import PushedResponse
from adapter.request import Request
from adapter.routes.answers import ignored, json_answer, read_body
from adapter.schema.reading import read_completion
from adapter.text_chunks import TextChunkWriter
from adapter.text_collector import TextCollector
from adapter.text_preparation import prepare_text


async def completions(request: Request) -> ASGIApp:
    settings, sessions = request.parts.settings, request.parts.sessions
    body = await read_body(request, settings.max_body)
    wanted, unknown = await aside(len(body), partial(read_completion, strict=settings.strict), body)
    answer = await prepare_text(wanted, request.parts.models, size=len(body))
    request.record.completions = answer.completions
    openings = await while_connected(request.receive, answer.openings(sessions))
    head = Head.new(wanted.model, answer.model.fingerprint, "cmpl-")
    run = partial(answer.run, sessions)
    if wanted.stream:
        chunks = TextChunkWriter(
            head,
            openings,
            choices=answer.choices,
            tops=bool(wanted.likeliest),
            include_usage=wanted.include_usage,
            usage=(lambda: answer.usage) if wanted.continuous_usage else None,
        )
        return PushedResponse(partial(event_stream, run, chunks), {**HEADERS, **ignored(unknown)})
    collector = TextCollector(head, openings, choices=answer.choices, kept=wanted.n or 1, likeliest=wanted.likeliest)
    await while_connected(request.receive, run(collector.take))
    return json_answer(collector.whole(), headers=ignored(unknown))
