"""Notices silence, and can break a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import TypeVar

T = TypeVar("T")

# A timer that is later than this, in seconds, tells that this process had no time for anything.
_HELD_UP = 0.1


class Watchdog:
    """Bounds the silence of what one task at a time waits for.

    asyncio.timeout would set and cancel a timer for every token. Here there is one timer, which looks, when it
    fires, how much longer it should have waited; a token costs a clock reading. Close it when done.

    When it fires late, the silence may be this process's own deafness: it waits once more, as long as it was late, for
    what came meanwhile to be read.
    """

    __slots__ = ("_alive", "_error", "_heard", "_loop", "_most", "_patience", "_timer", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._patience: float | None = None
        self._most = inf
        self._heard = 0.0
        self._alive = 0.0
        self._error: Exception | None = None

    async def wait(self, awaitable: Awaitable[T], seconds: float | None = None, most: float = inf) -> T:
        """What `awaitable` gives. Raises TimeoutError when for `seconds` neither it ended nor anything was `heard`, nor
        was it `alive`, which alone counts for `most` seconds; or the error that `interrupt` was given.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        self._begin(task, seconds, most)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Someone else may have cancelled the task at the same time: then that counts.
            if self._error is not None and task.uncancel() <= cancelling:
                raise self._error from None
            raise
        finally:
            self._waiting, self._patience = None, None

    def heard(self) -> None:
        """There was what is waited for just now, or some of it."""
        self._heard = self._loop.time()

    def alive(self) -> None:
        """There was a sign of life just now, and no more than that."""
        self._alive = self._loop.time()

    def expect(self, seconds: float | None) -> None:
        """From now on so many seconds of silence are too much; None: any."""
        self._patience = seconds
        self.heard()
        if seconds is None:
            return
        if self._timer is None or self._timer.when() > self._heard + seconds:
            self.close()
            self._look_at(self._heard + seconds)

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
            self._timer = None

    def _begin(self, task: asyncio.Task[object], seconds: float | None, most: float) -> None:
        self._waiting, self._error, self._most = task, None, most
        self.expect(seconds)

    def _look_at(self, when: float, *, again: bool = True) -> None:
        self._timer = self._loop.call_at(when, self._look, when, again)

    def _look(self, when: float, again: bool) -> None:
        self._timer = None
        if self._patience is None:
            return
        now = self._loop.time()
        due = min(max(self._heard, self._alive) + self._patience, self._heard + self._most)
        if now < due:
            self._look_at(due)
        elif again and now - when > _HELD_UP:
            self._look_at(now + (now - when), again=False)
        else:
            self.interrupt(TimeoutError())
