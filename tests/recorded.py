"""Server that replays the responses in tests/data: responses of documented APIs, each with its source."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from subnet.engines.remote.draws import PROBE_TEMPERATURE
from subnet.models.resolve import resolve

_DATA = Path(__file__).parent / "data"
MODEL = "$MODEL"
"""Placeholder in the data for the path of the demo model."""


Draw = Callable[[list[int], int, int], list[int]]


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Response on `path`: either `response`, or `events`, followed by [DONE] if `complete`.

    `request` is the body of the request. Of several active lines with the same path, the last one is used.
    """

    source: str
    name: str = ""
    path: str
    status: int = 200
    request: Any = None
    response: Any = None
    events: list[Any] | None = None
    complete: bool = True


class RecordedServer:
    """Replays the lines without a name and those whose name is in `active`.

    `requests` are the bodies received, except for /tokenize. `disconnected` is set when a client disconnects before the
    end of a response. `metrics` is the text at /metrics. Probes of the server's draws are not among the requests, but
    answered by `draw`, given prompt, seed and number of tokens.
    """

    def __init__(self, lines: list[Line]) -> None:
        self.url = ""
        self.active: set[str] = set()
        self.requests: list[Any] = []
        self.disconnected = asyncio.Event()
        self.draw: Draw | None = None
        self.metrics = ""
        self._lines = lines

    def line(self, name: str) -> Line:
        return next(line for line in self._lines if line.name == name)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        if self.metrics and request.path == "/metrics":
            return web.Response(text=self.metrics)
        candidates = [line for line in self._lines if line.path == request.path and line.name in {"", *self.active}]
        if not candidates:
            return web.json_response({"detail": "Not Found"}, status=404)
        line = candidates[-1]
        if request.method == "POST" and is_probe(await request.json()):
            return self._answer_probe(await request.json())
        if request.path != "/tokenize" and request.method == "POST":
            self.requests.append(await request.json())
        if line.events is None:
            body = b"" if line.response is None else json.dumps(line.response).encode()
            return web.Response(body=body, status=line.status, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in line.events:
                await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            if "endless" in line.name:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.disconnected.set()
            raise
        if line.complete:
            await response.write(b"data: [DONE]\n\n")
        return response

    def _answer_probe(self, body: Any) -> web.Response:
        if self.draw is None:
            return web.json_response({"error": {"message": "no probes"}}, status=400)
        tokens = self.draw(body["prompt"], body["seed"], body["max_tokens"])
        choice = {"index": 0, "text": "", "token_ids": tokens, "finish_reason": "length"}
        events = [json.dumps({"choices": [choice]}), "[DONE]"]
        text = "".join(f"data: {event}\n\n" for event in events)
        return web.Response(text=text, content_type="text/event-stream")


def is_probe(body: Any) -> bool:
    """Return whether a request of vLLM or SGLang is one that finds out how the server draws."""
    sampling: dict[str, Any] = body.get("sampling_params", body)
    return sampling.get("temperature") == PROBE_TEMPERATURE


@asynccontextmanager
async def recorded(name: str) -> AsyncIterator[RecordedServer]:
    """Run a server on loopback that replays tests/data/`name`.jsonl."""
    text = (_DATA / f"{name}.jsonl").read_text(encoding="utf-8").replace(MODEL, str(resolve(None, print)))
    server = RecordedServer([msgspec.json.decode(line, type=Line) for line in text.splitlines() if line])
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.respond)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
