"""Threads for long CPU-bound work, which would otherwise block the event loop and with it every stream."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from subnet.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

OFFLOAD_THRESHOLD = 32 * 1024
"""Minimum size of a request, in bytes, to process it in a thread. Below that, the thread costs more than it saves."""

# Threads share the GIL, so a larger number would delay the streams after all.
_threads = Threads(2, "large-request")

# Not those of large requests: slow chat templates only keep each other waiting.
_slow_threads = Threads(1, "slow-template")

# For work that mostly waits, for a node to tokenize: it must not keep large requests of other models waiting.
_waiting_threads = Threads(32, "waiting-request")


async def offload_waiting(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work`, which may wait for a node, in a thread, and return its result."""
    return await _waiting_threads.run(work, *args, **kwargs)


async def offload_slow(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` for a chat template that takes long in the one thread for that, and return its result."""
    return await _slow_threads.run(work, *args, **kwargs)


async def offload_if_large(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` for a request of `size` bytes and return its result.

    It runs in a thread if `size` is at least OFFLOAD_THRESHOLD, and waits if all threads are busy; small requests run
    at once in the caller's thread.
    """
    if size < OFFLOAD_THRESHOLD:
        return work(*args, **kwargs)
    return await _threads.run(work, *args, **kwargs)


class _Pauses:
    """Number of pauses of garbage collection that are in force, and whether it was on before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.was_enabled = True


_pauses = _Pauses()


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause garbage collection in all threads, for work in a thread that creates many objects.

    A collection looks at all of them at once, meanwhile the event loop waits. Most objects are freed without one.
    """
    with _pauses.lock:
        if not _pauses.count:
            _pauses.was_enabled = gc.isenabled()
            gc.disable()
        _pauses.count += 1
    try:
        yield
    finally:
        with _pauses.lock:
            _pauses.count -= 1
            if not _pauses.count and _pauses.was_enabled:
                gc.enable()
