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
        body = _Body(caller_of(scope), send, self._headers)
        try:
            await self._produce(body.write)
            await body.end()
        finally:
            body.close()


class _Body:
    """Parts may come anywhere, but a start is sent by a task; what comes meanwhile is held."""

    __slots__ = ("_caller", "_headers", "_held", "_send", "_started", "_starting")

    def __init__(self, caller: Caller, send: Send, headers: Headers) -> None:
        self._caller = caller
        self._send = send
        self._headers = headers
        self._held: list[bytes] = []
        self._starting: asyncio.Task[None] | None = None
        self._started = False

    def write(self, data: bytes) -> None:
        if self._started:
            self._caller.write(data)
        else:
            self._hold(data)

    async def end(self) -> None:
        await (self._starting or self._start())
        await self._send({"type": "http.response.body"})

    def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        self._started = True
        if self._held:
            self._caller.write(b"".join(self._held))
            self._caller.flush()
            self._held.clear()
