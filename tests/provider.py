"""Scripted OpenAI-compatible provider on loopback, which can misbehave in many ways.

    async with Provider(error_response(429, retry_after=1), cut_off(after=3), answer("Hello")) as provider:
        ...                                     # send requests to provider.url
    assert len(provider.chat_requests) == 3     # each with its time, headers and body

Each chat completion gets the next script; the last one is repeated. Text completions and embeddings have scripts of
their own; `as_text` makes one from that of a chat completion. `python -m tests.provider --help` runs a provider
as a process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

TEXT = "One two three four five six."
"""Default answer, in six parts."""
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Pause:
    """Send nothing until the event is set, or for this number of seconds; None: forever."""

    until: asyncio.Event | float | None = None


@dataclass(frozen=True)
class Cut:
    """Reset the connection."""


Step = bytes | Pause | Cut


@dataclass(frozen=True)
class Script:
    """Response to one request: `before` precedes the headers, and every bytes of `steps` is a separate write."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: _EVENTS)
    before: Sequence[Pause | Cut] = ()


@dataclass
class RecordedRequest:
    """One request. `at` is by time.monotonic; `disconnected` is set if the client disconnects during the response."""

    path: str
    at: float
    headers: Mapping[str, str]
    body: Any
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


Scripted = Script | Callable[[RecordedRequest], Script]


class Provider:
    """Server that plays `scripts`, and records all `requests` in order.

    `completions` and `embeddings` are the scripts of these endpoints; without any, the server does not have them.
    `models` is the model list, or a script. `routes` maps other paths to a JSON value, a script, or a callable that
    returns either for a request.
    """

    def __init__(
        self,
        *scripts: Scripted,
        completions: Sequence[Scripted] = (),
        embeddings: Sequence[Scripted] = (),
        models: Sequence[Any] | Script = ("model",),
        routes: Mapping[str, Any] | None = None,
    ) -> None:
        self.requests: list[RecordedRequest] = []
        self.models = models
        self.routes = dict(routes or {})
        self.url = ""
        self._scripts = {
            CHAT: list(scripts) or [answer()],
            COMPLETIONS: list(completions),
            EMBEDDINGS: list(embeddings),
        }
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stop listening and abort running requests. The server may be started again at the same port."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    @property
    def chat_requests(self) -> list[RecordedRequest]:
        """Requests for chat completions."""
        return self.requests_to(CHAT)

    def requests_to(self, path: str) -> list[RecordedRequest]:
        return [request for request in self.requests if request.path == path]

    def set_scripts(self, *scripts: Scripted, path: str = CHAT) -> None:
        """Replace the scripts of an endpoint."""
        self._scripts[path] = list(scripts)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        recorded = RecordedRequest(
            request.path, time.monotonic(), dict(request.headers), json.loads(data) if data else None
        )
        self.requests.append(recorded)
        try:
            return await _play(self._script(recorded), request)
        except (asyncio.CancelledError, ConnectionResetError):
            recorded.disconnected.set()
            raise

    def _script(self, request: RecordedRequest) -> Script:
        if scripts := self._scripts.get(request.path):
            response: Any = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        elif request.path in self.routes:
            response = self.routes[request.path]
        elif request.path == "/v1/models":
            response = (
                self.models if isinstance(self.models, Script) else {"object": "list", "data": _entries(self.models)}
            )
        else:
            response = error_response(404, "no such path")
        response = response(request) if callable(response) else response
        return response if isinstance(response, Script) else json_response(response)


async def _play(script: Script, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=script.status, headers=dict(script.headers))
    for pause in script.before:
        await _do(pause, request, response)
    await response.prepare(request)
    for step in script.steps:
        await _do(step, request, response)
    return response


async def _do(step: Step, request: web.Request, response: web.StreamResponse) -> None:
    if isinstance(step, bytes):
        await response.write(step)
    elif isinstance(step, Cut):
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionAbortedError
    elif isinstance(step.until, float | int):
        await asyncio.sleep(step.until)
    else:
        await (step.until or asyncio.Event()).wait()


def _entries(models: Sequence[Any]) -> list[Any]:
    return [{"id": model, "object": "model", "created": 1} if isinstance(model, str) else model for model in models]


def event(data: Any, *, end: str = "\n\n", name: str = "") -> bytes:
    """Encode one server-sent event; data other than text is encoded as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{f'event: {name}' + end[: len(end) // 2] if name else ''}data: {text}{end}".encode()


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """Return a chat.completion.chunk; `more` are fields of its choice."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "model", "choices": [choice]}


def usage_of(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"usage": {**counts, **more}}


def pieces(text: str) -> list[str]:
    """Split `text` into words, each with the space before it."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def text_events(text: str) -> list[bytes]:
    """Return events with a role and then each word of `text`."""
    return [
        event(chunk({"role": "assistant", "content": ""})),
        *(event(chunk({"content": piece})) for piece in pieces(text)),
    ]


def answer(
    text: str = TEXT, *, usage: bool = True, done: bool = True, crlf: bool = False, finish: str | None = "stop"
) -> Script:
    """Return an answer as OpenAI streams it; without `done` there is no [DONE], without `finish` no finish_reason."""
    steps = text_events(text)
    steps += [event(chunk(finish=finish))] if finish is not None else []
    steps += [event({**chunk(), "choices": [], **usage_of(7, len(pieces(text)))})] if usage else []
    steps += [event("[DONE]")] if done else []
    return Script([step.replace(b"\n", b"\r\n") if crlf else step for step in steps])


def raw(*steps: Step | str, headers: Mapping[str, str] = _EVENTS, status: int = 200) -> Script:
    """Return a response of exactly these writes."""
    return Script([step.encode() if isinstance(step, str) else step for step in steps], status, headers)


def events(*data: Any, done: bool = True) -> Script:
    """Return these events, followed by [DONE]."""
    return Script([*(event(each) for each in data), *([event("[DONE]")] if done else [])])


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """Return a JSON response, as from a server that does not stream."""
    return Script([json.dumps(body).encode()], status, {**_JSON, **(headers or {})})


def message(text: str = TEXT, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """Return a chat.completion; `more` are fields of its message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], **usage_of(7, len(pieces(text)))}


def error_response(
    status: int,
    text: str = "not now",
    *,
    type: str | None = None,
    code: str | None = None,
    param: str | None = None,
    retry_after: float | str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Script:
    """Return an error response in OpenAI's format."""
    more = {} if retry_after is None else {"retry-after": str(retry_after)}
    error = {"message": text, "type": type, "param": param, "code": code}
    return json_response({"error": error}, status, {**more, **(headers or {})})


def connection_reset() -> Script:
    """Reset the connection before the headers."""
    return Script(before=[Cut()])


def unresponsive(until: asyncio.Event | None = None) -> Script:
    """Send nothing, not even headers, until the event is set; then an answer."""
    return Script(answer().steps, before=[Pause(until)])


def delayed(until: asyncio.Event, text: str = TEXT) -> Script:
    """Send headers at once, and the answer when the event is set."""
    return Script([Pause(until), *answer(text).steps])


def cut_off(after: int, text: str = TEXT) -> Script:
    """Reset the connection after this number of words."""
    return Script([*text_events(text)[: after + 1], Cut()])


def truncated(after: int, text: str = TEXT) -> Script:
    """End the response after this number of words, without finish_reason and [DONE]."""
    return Script(text_events(text)[: after + 1])


def stalled(after: int, until: asyncio.Event | None = None, text: str = TEXT) -> Script:
    """Stall after this number of words until the event is set; then send the rest."""
    steps = answer(text).steps
    return Script([*steps[: after + 1], Pause(until), *steps[after + 1 :]])


def malformed(after: int, text: str = TEXT) -> Script:
    """Send an event with invalid JSON after this number of words, then the rest."""
    steps = answer(text).steps
    return Script([*steps[: after + 1], event('{"choices": [{"index'), *steps[after + 1 :]])


def error_event(after: int, error: Any, text: str = TEXT) -> Script:
    """Send an error event after this number of words, then end."""
    return Script([*text_events(text)[: after + 1], event({"error": error})])


def as_text(script: Script) -> Script:
    """Return the same answer, with the same faults, as a text completion."""
    steps = [_as_text_event(step) if isinstance(step, bytes) else step for step in script.steps]
    return Script([step for step in steps if step], script.status, script.headers, script.before)


def _as_text_event(step: bytes) -> bytes:
    data = step.decode().removeprefix("data: ").removesuffix("\n\n")
    if not data.startswith('{"id"'):
        return step
    chunk = json.loads(data)
    if any("role" in choice["delta"] for choice in chunk["choices"]):
        return b""
    choices = [
        {name: value for name, value in choice.items() if name != "delta"}
        | {"text": choice["delta"].get("content", "")}
        for choice in chunk["choices"]
    ]
    return event({**chunk, "object": "text_completion", "choices": choices})


def text_chunk(text: str = "", finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """Return a chunk of a text completion, or a whole one; `more` are fields of its choice."""
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish, **more}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "model", "choices": [choice]}


def embeddings_of(*vectors: Sequence[float] | str, **more: Any) -> dict[str, Any]:
    """Return a response with embeddings; `more` are further members of it."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": "model", "usage": usage, **more}


def split(script: Script, size: int) -> Script:
    """Split a script of bytes into writes of `size`."""
    data = b"".join(step for step in script.steps if isinstance(step, bytes))
    return Script([data[at : at + size] for at in range(0, len(data), size)], script.status, script.headers)


def paced(text: str, seconds: float) -> Script:
    """Return an answer with a pause after each event."""
    return Script([step for each in answer(text).steps for step in (each, Pause(seconds))])


async def _serve(port: int, text: str, seconds: float) -> None:
    provider = Provider(paced(text, seconds))
    await provider.start(port)
    print(f"ready on {provider.url}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: a free one")
    parser.add_argument("--text", default=TEXT, help="text of every answer")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two words")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.text, options.pause))


if __name__ == "__main__":
    main()
