"""Several calls as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


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
