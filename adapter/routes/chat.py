"""POST /v1/chat/completions"""

from __future__ import annotations

from functools import partial

from adapter.asgi import ASGIApp
from adapter.aside import aside
from adapter.chunks import ChunkWriter, Head
from adapter.collector import Collector
from adapter.connected import while_connected
from adapter.event_stream import HEADERS, event_stream
from adapter.preparation import Rules, prepare
from adapter.push import PushedResponse
from adapter.request import Request
from adapter.routes.answers import ignored, json_answer, read_body
from adapter.schema.reading import read_request


async def chat_completions(request: Request) -> ASGIApp:
    settings, models, sessions = request.parts.settings, request.parts.models, request.parts.sessions
    body = await read_body(request, settings.max_body)
    wanted, unknown = await aside(len(body), partial(read_request, strict=settings.strict), body)
    rules = Rules(default_max_tokens=settings.default_max_tokens, allow_chat_template=settings.allow_chat_template)
    completion = await prepare(wanted, models, size=len(body), rules=rules)
    request.record.completions = [completion]
    headers = ignored(unknown)
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
    await while_connected(request.receive, run(collector.take))
    return json_answer(collector.whole(), headers=headers)
