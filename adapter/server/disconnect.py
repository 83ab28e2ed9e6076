"""Cancel work for clients that disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from adapter.errors import ClientDisconnected
from adapter.server.response_writer import ResponseWriter

T = TypeVar("T")


async def cancel_on_disconnect(writer: ResponseWriter, work: Awaitable[T]) -> T:
    """Return the result of `work`, or cancel it and raise ClientDisconnected if the client of `writer` disconnects."""
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    writer.on_disconnect(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        # If someone else cancelled the task at the same time, that cancellation must not be swallowed.
        if writer.disconnected and task.uncancel() <= cancelling:
            raise ClientDisconnected("the client closed the connection") from None
        raise
    finally:
        writer.on_disconnect(None)
