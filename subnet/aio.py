"""Several calls as one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def pulled(push: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> AsyncGenerator[T, None]:
    """The items that `push` gives to its argument, in order, and then the error that it ends with, if any.

    Closing the generator cancels `push` and waits for its end. What waits to be taken has no bound of its own: a
    stream holds at most the tokens of one answer.
    """
    items: deque[T] = deque()
    moved = asyncio.Event()

    def put(item: T) -> None:
        items.append(item)
        moved.set()

    task = asyncio.create_task(push(put))
    task.add_done_callback(lambda _: moved.set())
    try:
        while items or not task.done():
            while items:
                yield items.popleft()
            moved.clear()
            if not task.done():
                await moved.wait()
        task.result()
    finally:
        task.cancel()
        # Its error is not of interest any more; a cancellation of who waits here is.
        await asyncio.gather(task, return_exceptions=True)


async def together(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of `calls`; the first error of any ends them all, and is raised once they have ended."""
    if len(calls) == 1:
        return await calls[0]
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await ended(tasks)
    return None


async def ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
