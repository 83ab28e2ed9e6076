"""Work that is long enough to hold up every stream goes to a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 32 * 1024
"""Bytes of a request from which on it is read and made a prompt aside. Below it, a thread costs more than it spares."""

# Threads share Python's lock, so more of them would hold the streams up after all.
_threads = ThreadPoolExecutor(2, "large-request")


async def aside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work` for a request of `size` bytes. Large requests wait for one another, small ones never."""
    if size < LARGE:
        return work(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: work(*args, **kwargs))
