"""POST /v1/chat/completions"""

from __future__ import annotations

import re
from contextlib import aclosing

from litestar import post
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from adapter.access import record_of
from adapter.aside import aside
from adapter.chunks import ChunkWriter, Head, collect
from adapter.completion import Completion, prepare
from adapter.event_stream import HEADERS, EventStream, event_stream, while_connected
from adapter.models import Models
from adapter.routes.answers import AnyRequest, json_answer, read_body
from adapter.schema.reading import read_request
from adapter.schema.responses import ChatCompletion
from adapter.settings import Settings
from subnet.client import SessionManager


@post("/v1/chat/completions", name="chat_completions")
async def chat_completions(
    request: AnyRequest,
    settings: NamedDependency[Settings],
    models: NamedDependency[Models],
    sessions: NamedDependency[SessionManager],
) -> ASGIResponse:
    body = await read_body(request, settings.max_body)
    wanted, unknown = await aside(len(body), read_request, body)
    completion = await prepare(wanted, models, size=len(body), default_max_tokens=settings.default_max_tokens)
    record_of(request.scope).completion = completion
    headers = _ignored(unknown)
    head = Head.new(wanted.model, completion.model.fingerprint)
    if wanted.stream:
        chunks = ChunkWriter(head, include_usage=wanted.include_usage)
        items = event_stream(completion.events(sessions), chunks)
        return EventStream(iterator=items, headers={**HEADERS, **headers})
    whole = await while_connected(request.receive, _whole(completion, sessions, head))
    return json_answer(whole, headers=headers)


async def _whole(completion: Completion, sessions: SessionManager, head: Head) -> ChatCompletion:
    async with aclosing(completion.events(sessions)) as events:
        return await collect(events, head)


def _ignored(unknown: tuple[str, ...]) -> dict[str, str]:
    names = [re.sub(r"[^A-Za-z0-9._-]", "?", name)[:64] for name in unknown[:32]]
    return {"x-ignored-params": ", ".join(names)} if names else {}
