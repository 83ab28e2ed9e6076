"""A response whose body is pushed by who makes it, instead of being asked for piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from adapter.asgi import Receive, Scope, Send
from adapter.connected import disconnected, end
from adapter.errors import ClientGone
from adapter.response import encoded

Write = Callable[[bytes], None]

DIRECT = "adapter.write"
"""The ASGI extension by which our server takes a part of a body without a task: a function of the bytes that is False,
and has taken nothing, as long as the client is slow. It may be called once the response has been started."""


class PushedResponse:
    """Calls `produce` with the function that takes the body's parts. Status and headers go out with the first part, so
    that an error before it can still be a plain answer.

    `produce` is cancelled when the client leaves. What a slow client has not taken yet is held here and goes out as
    one part when it can.
    """

    def __init__(self, produce: Callable[[Write], Awaitable[None]], headers: Mapping[str, str]) -> None:
        self._produce = produce
        self._start = encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(scope)
        producer = asyncio.ensure_future(self._produce(body.write))
        watcher = asyncio.create_task(disconnected(receive))
        for task in (producer, watcher):
            task.add_done_callback(body.wake)
        try:
            with suppress(ClientGone):
                await self._send(body, producer, watcher, send)
        finally:
            await end(producer)
            await end(watcher)

    async def _send(
        self, body: _Body, producer: asyncio.Future[None], watcher: asyncio.Future[None], send: Send
    ) -> None:
        started = False
        while True:
            await body.moved()
            if watcher.done():
                raise ClientGone("the client closed the connection")
            if data := body.taken():
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": self._start})
                    started = True
                await send({"type": "http.response.body", "body": data, "more_body": True})
                body.flow()
            elif producer.done():
                producer.result()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return


class _Body:
    """What was pushed and not yet sent."""

    def __init__(self, scope: Scope) -> None:
        extensions: Mapping[str, Any] = scope.get("extensions") or {}
        self._direct: Callable[[bytes], bool] | None = extensions.get(DIRECT)
        self._flowing = False
        self._held: list[bytes] = []
        self._moved = asyncio.Event()

    def write(self, data: bytes) -> None:
        if self._flowing and self._direct is not None and self._direct(data):
            return
        self._flowing = False
        self._held.append(data)
        self._moved.set()

    def flow(self) -> None:
        """Everything taken has been sent: what comes next need not wait here, unless more has come meanwhile."""
        self._flowing = not self._held

    def wake(self, _: object) -> None:
        self._moved.set()

    async def moved(self) -> None:
        await self._moved.wait()
        self._moved.clear()

    def taken(self) -> bytes:
        data = b"".join(self._held)
        self._held.clear()
        return data
