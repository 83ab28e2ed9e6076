"""Threads for work that blocks: a pool for each kind of work, so that what hangs in one does not hold up the others.

Unlike those of concurrent.futures and asyncio.to_thread, these threads are not waited for: neither when an event loop
is closed nor when the process exits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_running: set[Future[Any]] = set()


class Threads:
    """Up to `count` threads for one kind of work, named `name`. Further work waits until one of them is free."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._changed = threading.Condition()
        self._pending: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._started = 0
        self._idle = 0
        self._closed = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in one of the threads, with the caller's context variables, and return its result.

        Cancelling the call prevents work that has not begun, and leaves other work to itself.
        """
        context = copy_context()
        return await asyncio.wrap_future(self.submit(partial(context.run, work, *args, **kwargs)))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Call `work` in one of the threads, and return the future of its result.

        Raises RuntimeError once closed, and if the system does not allow a first thread.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the threads {self._name} are closed")
            self._pending.append((future, work))
            if len(self._pending) <= self._idle:
                self._changed.notify()
            elif self._started < self._count:
                self._start()
        return future

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._started + 1}", daemon=True).start()
        except RuntimeError:
            if not self._started:
                self._pending.clear()
                raise
            # The threads that there are do the work.
        else:
            self._started += 1

    def close(self) -> None:
        """End the threads, each after the work that it does; work that has not begun is cancelled."""
        with self._changed:
            self._closed = True
            pending, self._pending = list(self._pending), deque()
            self._changed.notify_all()
        for future, _ in pending:
            future.cancel()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._pending or self._closed)
                self._idle -= 1
                if self._closed:
                    return
                future, work = self._pending.popleft()
            if future.set_running_or_notify_cancel():
                _complete(future, work)
            # The result, and what the work refers to, must not live until the next work comes.
            del future, work


async def run(name: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` in a thread of its own, named `name`, as Threads.run does, and return its result."""
    context = copy_context()
    return await asyncio.wrap_future(start(name, partial(context.run, work, *args, **kwargs)))


def start(name: str, work: Callable[[], T]) -> Future[T]:
    """Call `work` in a thread of its own, named `name`, and return the future of its result, which nothing cancels.

    Raises RuntimeError if the system allows no more threads.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    threading.Thread(target=_complete, args=(future, work), name=name, daemon=True).start()
    return future


def _complete(future: Future[T], work: Callable[[], T]) -> None:
    with _lock:
        _running.add(future)
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        with _lock:
            _running.discard(future)


def exit_if_busy(code: int = 0) -> None:
    """Exit the process at once if work is running in any of these threads; to be called when all else has ended.

    Python would stop them in the middle of a library, which may abort the process.
    """
    with _lock:
        busy = bool(_running)
    if busy:
        _exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
