"""Work for a client only lasts as long as the client stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from adapter.errors import ClientGone
from adapter.server.response_writer import Caller

T = TypeVar("T")


async def while_connected(caller: Caller, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises ClientGone."""
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    caller.watch(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        # Someone else may have cancelled the task at the same time: then that counts.
        if caller.gone and task.uncancel() <= cancelling:
            raise ClientGone("the client closed the connection") from None
        raise
    finally:
        caller.watch(None)
