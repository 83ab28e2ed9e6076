"""An OpenAI-compatible provider that misbehaves as it is told, on loopback.

    async with Provider(refuse(429, retry_after=1), cut(after=3), answer("Hello")) as provider:
        ...                                  # ask provider.url
    assert len(provider.chats) == 3          # what it saw: when, and with which headers and body

Each chat completion gets the next script; the last one stays. `python -m tests.provider --help` runs one as a process.
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
"""What is answered where a test does not care; six pieces."""
CHAT = "/v1/chat/completions"
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Pause:
    """Say nothing until the event, or for so many seconds; None is for ever."""

    until: asyncio.Event | float | None = None


@dataclass(frozen=True)
class Cut:
    """Reset the connection."""


Step = bytes | Pause | Cut


@dataclass(frozen=True)
class Script:
    """How one request is answered: `before` comes ahead of the headers; each bytes of `steps` is a write of its own."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: _EVENTS)
    before: Sequence[Pause | Cut] = ()


@dataclass
class Seen:
    """One request. `at` is time.monotonic; `gone` is set when the client leaves before the answer is complete."""

    path: str
    at: float
    headers: Mapping[str, str]
    body: Any
    gone: asyncio.Event = field(default_factory=asyncio.Event)


Scripted = Script | Callable[[Seen], Script]


class Provider:
    """`seen` is every request, in order. `models` is the list of models, or a script; `routes` is what else there is:
    a JSON value, a script, or a callable that makes either from the request.
    """

    def __init__(
        self, *scripts: Scripted, models: Sequence[Any] | Script = ("model",), routes: Mapping[str, Any] | None = None
    ) -> None:
        self.seen: list[Seen] = []
        self.models = models
        self.routes = dict(routes or {})
        self.url = ""
        self._scripts = list(scripts) or [answer()]
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
        """Nobody listens any more, and what ran is cut. It may be started again, at the same port."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    @property
    def chats(self) -> list[Seen]:
        """The chat completions that were asked for."""
        return self.asked(CHAT)

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def then(self, *scripts: Scripted) -> None:
        """From now on answer so."""
        self._scripts = list(scripts)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        seen = Seen(request.path, time.monotonic(), dict(request.headers), json.loads(data) if data else None)
        self.seen.append(seen)
        try:
            return await _play(self._script(seen), request)
        except (asyncio.CancelledError, ConnectionResetError):
            seen.gone.set()
            raise

    def _script(self, seen: Seen) -> Script:
        if seen.path == CHAT:
            found: Any = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        elif seen.path in self.routes:
            found = self.routes[seen.path]
        elif seen.path == "/v1/models":
            found = (
                self.models if isinstance(self.models, Script) else {"object": "list", "data": _entries(self.models)}
            )
        else:
            found = refuse(404, "no such path")
        found = found(seen) if callable(found) else found
        return found if isinstance(found, Script) else whole(found)


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
    """One server-sent event; what is no text is sent as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{f'event: {name}' + end[: len(end) // 2] if name else ''}data: {text}{end}".encode()


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """A chat.completion.chunk; `more` goes into its choice."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "model", "choices": [choice]}


def usage_of(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"usage": {**counts, **more}}


def pieces(text: str) -> list[str]:
    """The words of `text`, each with the space before it."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def spoken(text: str) -> list[bytes]:
    """A role, and an event for each piece of `text`."""
    return [
        event(chunk({"role": "assistant", "content": ""})),
        *(event(chunk({"content": piece})) for piece in pieces(text)),
    ]


def answer(
    text: str = TEXT, *, usage: bool = True, done: bool = True, crlf: bool = False, finish: str | None = "stop"
) -> Script:
    """A whole answer, as OpenAI streams it; without `done` there is no [DONE], without `finish` no finish_reason."""
    steps = spoken(text)
    steps += [event(chunk(finish=finish))] if finish is not None else []
    steps += [event({**chunk(), "choices": [], **usage_of(7, len(pieces(text)))})] if usage else []
    steps += [event("[DONE]")] if done else []
    return Script([step.replace(b"\n", b"\r\n") if crlf else step for step in steps])


def raw(*steps: Step | str, headers: Mapping[str, str] = _EVENTS, status: int = 200) -> Script:
    """Exactly these bytes, in these writes."""
    return Script([step.encode() if isinstance(step, str) else step for step in steps], status, headers)


def events(*data: Any, done: bool = True) -> Script:
    """These as events, and [DONE]."""
    return Script([*(event(each) for each in data), *([event("[DONE]")] if done else [])])


def whole(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """One JSON value, as from a server that streams nothing."""
    return Script([json.dumps(body).encode()], status, {**_JSON, **(headers or {})})


def message(text: str = TEXT, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A chat.completion that is not streamed; `more` goes into its message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], **usage_of(7, len(pieces(text)))}


def refuse(
    status: int,
    text: str = "not now",
    *,
    type: str | None = None,
    code: str | None = None,
    param: str | None = None,
    retry_after: float | str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Script:
    """An error, as OpenAI sends it."""
    more = {} if retry_after is None else {"retry-after": str(retry_after)}
    error = {"message": text, "type": type, "param": param, "code": code}
    return whole({"error": error}, status, {**more, **(headers or {})})


def reset() -> Script:
    """The connection is reset before any headers."""
    return Script(before=[Cut()])


def silent(until: asyncio.Event | None = None) -> Script:
    """Accepted, and then nothing, not even headers; until the event: then an answer."""
    return Script(answer().steps, before=[Pause(until)])


def late(until: asyncio.Event, text: str = TEXT) -> Script:
    """Headers at once, the first piece after the event."""
    return Script([Pause(until), *answer(text).steps])


def cut(after: int, text: str = TEXT) -> Script:
    """Reset after so many pieces."""
    return Script([*spoken(text)[: after + 1], Cut()])


def ended(after: int, text: str = TEXT) -> Script:
    """After so many pieces the response ends as if it were complete: no finish_reason, no [DONE]."""
    return Script(spoken(text)[: after + 1])


def stalled(after: int, until: asyncio.Event | None = None, text: str = TEXT) -> Script:
    """Nothing after so many pieces; until the event: then the rest."""
    steps = answer(text).steps
    return Script([*steps[: after + 1], Pause(until), *steps[after + 1 :]])


def malformed(after: int, text: str = TEXT) -> Script:
    """After so many pieces an event that is no JSON, and then the rest."""
    steps = answer(text).steps
    return Script([*steps[: after + 1], event('{"choices": [{"index'), *steps[after + 1 :]])


def broken(after: int, error: Any, text: str = TEXT) -> Script:
    """After so many pieces an error as an event, and the end."""
    return Script([*spoken(text)[: after + 1], event({"error": error})])


def split(script: Script, size: int) -> Script:
    """The same bytes in writes of `size`; for scripts of bytes only."""
    data = b"".join(step for step in script.steps if isinstance(step, bytes))
    return Script([data[at : at + size] for at in range(0, len(data), size)], script.status, script.headers)


def paced(text: str, seconds: float) -> Script:
    """So long between two pieces."""
    return Script([step for each in answer(text).steps for step in (each, Pause(seconds))])


async def _serve(port: int, text: str, seconds: float) -> None:
    provider = Provider(paced(text, seconds))
    await provider.start(port)
    print(f"ready on {provider.url}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--text", default=TEXT, help="what it answers")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two pieces")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.text, options.pause))


if __name__ == "__main__":
    main()
