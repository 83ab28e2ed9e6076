"""Work for a client only lasts as long as the client stays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from adapter.asgi import Receive
from adapter.errors import ClientGone

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled, and waited for, when the client leaves. Raises ClientGone."""
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait((worker, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            raise ClientGone("the client closed the connection")
        return worker.result()
    finally:
        await end(worker)
        await end(watcher)


async def disconnected(receive: Receive) -> None:
    """Wait until the client leaves. The body of its request has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and wait for its end, whatever it is."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
