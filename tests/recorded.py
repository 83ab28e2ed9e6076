"""A server that plays what is written in tests/data: shapes of documented APIs, each with its source."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from subnet.models.resolve import resolve

_DATA = Path(__file__).parent / "data"
MODEL = "$MODEL"
"""Stands in the data for the path of the demo model."""


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the server answers on `path`: `events` with a [DONE] at their end where it is `whole`, or `answer`.

    `asked` is the body that it is asked with. Of several lines with one path, the last whose name is played counts.
    """

    source: str
    name: str = ""
    path: str
    status: int = 200
    asked: Any = None
    answer: Any = None
    events: list[Any] | None = None
    whole: bool = True


class Recorded:
    """Plays the lines without a name, and of those with one the ones that are in `playing`. `asked` are bodies that
    came, but for questions to the tokenizer; `left` is set when a client is gone before the end."""

    def __init__(self, lines: list[Line]) -> None:
        self.url = ""
        self.playing: set[str] = set()
        self.asked: list[Any] = []
        self.left = asyncio.Event()
        self._lines = lines

    def line(self, name: str) -> Line:
        return next(line for line in self._lines if line.name == name)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        lines = [line for line in self._lines if line.path == request.path and line.name in {"", *self.playing}]
        if not lines:
            return web.json_response({"detail": "Not Found"}, status=404)
        line = lines[-1]
        if request.path != "/tokenize" and request.method == "POST":
            self.asked.append(await request.json())
        if line.events is None:
            body = b"" if line.answer is None else json.dumps(line.answer).encode()
            return web.Response(body=body, status=line.status, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in line.events:
                await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            if "endless" in line.name:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        if line.whole:
            await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def recorded(name: str) -> AsyncIterator[Recorded]:
    """A server that plays tests/data/`name`.jsonl, on loopback."""
    text = (_DATA / f"{name}.jsonl").read_text(encoding="utf-8").replace(MODEL, str(resolve(None, print)))
    server = Recorded([msgspec.json.decode(line, type=Line) for line in text.splitlines() if line])
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
