"""Notices silence, and can break it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Watchdog:
    """Bounds each wait of one task at a time, and only the wait: a slow consumer is nobody's stall.

    asyncio.timeout would set and cancel a timer for every token. Here there is one timer, which looks, when it
    fires, how much longer it should have waited; a token costs a clock reading. Close it when done.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._deadline: float | None = None
        self._error: Exception | None = None

    async def wait(self, awaitable: Awaitable[T], seconds: float | None = None) -> T:
        """What `awaitable` gives. Raises TimeoutError after `seconds`, or the error that `interrupt` was given."""
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        self._begin(task, seconds)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Someone else may have cancelled the task at the same time: then that counts.
            if self._error is not None and task.uncancel() <= cancelling:
                raise self._error from None
            raise
        finally:
            self._waiting, self._deadline = None, None

    def interrupt(self, error: Exception) -> bool:
        """Raise `error` at whoever waits now; False if nobody does."""
        if self._waiting is None:
            return False
        if self._error is None:
            self._error = error
            self._waiting.cancel()
        return True

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, task: asyncio.Task[object], seconds: float | None) -> None:
        self._waiting, self._error = task, None
        if seconds is None:
            return
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self.close()
            self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self.interrupt(TimeoutError())
