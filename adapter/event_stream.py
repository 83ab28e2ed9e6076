"""Events -> a stream of server-sent events over HTTP, closed whatever happens to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send

from adapter.chunks import DONE, ChunkWriter
from adapter.errors import ClientGone, answer_to, report
from adapter.events import Event

T = TypeVar("T")

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


async def event_stream(events: AsyncGenerator[Event, None], chunks: ChunkWriter) -> AsyncGenerator[bytes, None]:
    """The body of an answer. An error before the first bytes is raised; a later one is the last event of a stream
    that then lacks its [DONE], so that a cut answer never looks finished.
    """
    async with aclosing(events):
        first = await anext(events)
        try:
            yield chunks.begin() + chunks.encode(first)
            async for event in events:
                if data := chunks.encode(event):
                    yield data
            yield DONE
        except Exception as error:
            report(error)
            yield b"data: " + answer_to(error).body + b"\n\n"


class EventStream(ASGIStreamingResponse):
    """Sends status and headers with the first item, so that an error before it can still be a plain answer.

    The iterator is closed in the request's own task when the client leaves, even while a send is blocked.
    """

    iterator: AsyncGenerator[bytes, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientGone):
            await while_connected(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self.iterator) as items:
            first = await anext(items)
            await self.start_response(send)
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for item in items:
                await send({"type": "http.response.body", "body": item, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled, and waited for, when the client leaves. Raises ClientGone."""
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((worker, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            raise ClientGone("the client closed the connection")
        return worker.result()
    finally:
        await _end(worker)
        await _end(watcher)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
