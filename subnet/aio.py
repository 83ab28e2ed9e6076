"""Helpers for asyncio: callbacks as an async generator, and a task group that raises a single error."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Sink = Callable[[T], None]
"""Callback that receives each item of a stream on the event loop's thread, without a task switch."""

# Time that one connection may take of the event loop before the others have their turn, in seconds.
_MAX_TURN = 0.005


class Turn:
    """Time that a connection has taken of the event loop since the others had their turn.

    A reader that finds its next message in a buffer goes on without a task switch, so a peer that sends fast enough
    would be served alone. With `if turn.took(seconds): await asyncio.sleep(0)` after each message it gets a share.
    """

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken = 0.0

    def took(self, seconds: float) -> bool:
        """Add the time that a message took, and return True if the others must have their turn now."""
        self._taken += seconds
        if self._taken < _MAX_TURN:
            return False
        self._taken = 0.0
        return True


async def stream_from_callback(producer: Callable[[Sink[T]], Coroutine[Any, Any, None]]) -> AsyncGenerator[T, None]:
    """Yield the items that `producer` passes to its callback, in order, then raise its error, if any.

    Closing the generator cancels `producer` and waits until it has ended. The buffer between the two is unbounded: a
    stream holds at most the tokens of one answer.
    """
    items: deque[T] = deque()
    changed = asyncio.Event()

    def put(item: T) -> None:
        items.append(item)
        changed.set()

    task = asyncio.create_task(producer(put))
    task.add_done_callback(lambda _: changed.set())
    try:
        while items or not task.done():
            while items:
                yield items.popleft()
            changed.clear()
            if not task.done():
                await changed.wait()
        task.result()
    finally:
        task.cancel()
        # The producer's error no longer matters; a cancellation of the task that waits here still does.
        await asyncio.gather(task, return_exceptions=True)


async def gather_or_cancel(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run `coroutines` concurrently; the first error cancels the rest and is raised once all have ended.

    A task group raises an ExceptionGroup. Callers handle one error by its class, so the first is raised by itself; the
    others followed from the cancellation, or came in the same moment.
    """
    if len(coroutines) == 1:
        return await coroutines[0]
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in coroutines:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
