"""A response whose body is pushed by who makes it, instead of being asked for piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from adapter.http.asgi import Receive, Scope, Send
from adapter.http.caller import Caller, caller_of
from adapter.http.response import Headers, encoded

Write = Callable[[bytes], None]


class PushedResponse:
    """Calls `produce` with the function that takes the body's parts. Status and headers go out with the first part, so
    that an error before it can still be a plain answer.
    """

    def __init__(self, produce: Callable[[Write], Awaitable[None]], headers: Mapping[str, str]) -> None:
        self._produce = produce
        self._headers = encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = caller_of(scope)
        start = _Start(caller, send, self._headers)
        caller.await_first(start.begin)
        try:
            await self._produce(caller.write)
            await start.made()
            await send({"type": "http.response.body"})
        finally:
            start.give_up()


class _Start:
    """Of an answer. Its first part may come anywhere, but a start is sent by a task."""

    def __init__(self, caller: Caller, send: Send, headers: Headers) -> None:
        self._caller = caller
        self._send = send
        self._headers = headers
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._make())

    async def made(self) -> None:
        await (self._task or self._make())

    def give_up(self) -> None:
        if self._task is not None and self._task.cancel():
            self._caller.discard()

    async def _make(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        self._caller.flush()
