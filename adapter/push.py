"""A response whose body is pushed by who makes it, instead of being asked for piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from adapter.asgi import Receive, Scope, Send
from adapter.caller import Caller, caller_of
from adapter.response import Headers, encoded

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

    def __init__(self, caller: Caller, send: Send, headers: Headers) -> None:
        self._caller = caller
        self._send = send
        self._headers = headers
        self._held: list[bytes] = []
        self._starting: asyncio.Task[None] | None = None
        self._take: Write = self._hold

    def write(self, data: bytes) -> None:
        self._take(data)

    async def end(self) -> None:
        await (self._starting or self._start())
        self._caller.flush()
        await self._send({"type": "http.response.body"})

    def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        self._caller.begin()
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        self._take = self._caller.write
        if self._held:
            self._take(b"".join(self._held))
            self._caller.flush()
            self._held.clear()
