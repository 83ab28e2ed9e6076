"""Helpers for asyncio: callbacks as an async generator, and tasks that are cancelled as a group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Sink = Callable[[T], None]
"""Callback that receives each item of a stream on the event loop's thread, without a task switch."""


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
    """Run `coroutines` concurrently; the first error cancels the rest and is raised once all have ended."""
    if len(coroutines) == 1:
        return await coroutines[0]
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await cancel_and_wait(tasks)
    return None


async def cancel_and_wait(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and wait until all have ended, ignoring their results and errors."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
