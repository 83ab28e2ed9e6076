"""Idle timeout for streams that costs one clock reading per token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from math import inf
from time import monotonic
from typing import TypeVar

from subnet.errors import AnswerTimeout

T = TypeVar("T")

# A timer that fires later than this, in seconds, shows that the event loop was blocked.
_MAX_TIMER_LAG = 0.1


class Activity:
    """Times of a stream's last token and last keep-alive, by time.monotonic; 0 for none."""

    __slots__ = ("last_keep_alive", "last_token")

    def __init__(self) -> None:
        self.last_token = 0.0
        self.last_keep_alive = 0.0


class IdleDeadline:
    """Idle timeout for the awaitables of one task, one at a time. Close it after use.

    asyncio.timeout would set and cancel a timer for every token. This class has a single timer: when it fires, it
    compares the clock with the recorded activity and, if there was any, fires again later.

    When the timer fires late, the event loop was blocked, and tokens may have arrived unread. It then waits once more,
    for as long as it was late, before it times out.

    An answer that began at `started`, by time.monotonic, must end within `answer_timeout` seconds. Then
    AnswerTimeout is raised, as if it had been passed to `abort`.
    """

    __slots__ = (
        "_abort_error",
        "_activities",
        "_answer_timeout",
        "_ends",
        "_error",
        "_idle_timeout",
        "_keep_alive_timeout",
        "_loop",
        "_scheduled",
        "_started",
        "_timer",
        "_waiting",
    )

    def __init__(self, started: float = 0.0, answer_timeout: float = inf) -> None:
        self._answer_timeout = answer_timeout
        self._ends = started + answer_timeout
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = inf
        self._waiting: asyncio.Task[object] | None = None
        self._idle_timeout: float | None = None
        self._keep_alive_timeout = inf
        self._started = 0.0
        self._activities: Sequence[Activity] = ()
        self._error: Exception | None = None
        self._abort_error: Exception | None = None

    async def wait(
        self,
        awaitable: Awaitable[T],
        idle_timeout: float | None = None,
        keep_alive_timeout: float = inf,
        activities: Sequence[Activity] = (),
        *,
        next_timeout: float = inf,
    ) -> T:
        """Return the result of `awaitable`. All times are in seconds; an `idle_timeout` of None means no timeout.

        A token in one of `activities` restarts the timeout; keep-alives do so for at most `keep_alive_timeout` seconds
        after the last token. `next_timeout` is the value that a later `restart` will set: if it is shorter than
        `idle_timeout`, the timer fires early once, and `restart` need not set another.

        Raises TimeoutError, or the error passed to `abort`.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        if self._abort_error is not None:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise self._abort_error
        self._begin(task, keep_alive_timeout, activities)
        self.restart(idle_timeout, next_timeout)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # If the task was also cancelled from outside, that cancellation takes precedence.
            if self._error is not None and task.uncancel() <= cancelling:
                raise (self._abort_error or self._error) from None
            raise
        finally:
            self._waiting, self._idle_timeout, self._activities = None, None, ()

    def restart(self, idle_timeout: float | None, next_timeout: float = inf) -> None:
        """Start a new idle timeout now, in seconds (None: no timeout); `next_timeout` as in `wait`."""
        self._idle_timeout = idle_timeout
        self._started = monotonic()
        if idle_timeout is not None:
            when = min(self._started + min(idle_timeout, next_timeout), self._ends)
            if when < self._scheduled:
                self.close()
                self._schedule(when)

    def abort(self, error: Exception) -> None:
        """Raise `error` in the current `wait` and in all later ones. After the first call, `error` is ignored."""
        self._abort_error = self._abort_error or error
        self._interrupt(self._abort_error)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._scheduled = None, inf

    def _begin(self, task: asyncio.Task[object], keep_alive_timeout: float, activities: Sequence[Activity]) -> None:
        self._waiting, self._error = task, None
        self._keep_alive_timeout, self._activities = keep_alive_timeout, activities

    def _interrupt(self, error: Exception) -> None:
        if self._waiting is not None and self._error is None:
            self._error = error
            self._waiting.cancel()

    def _schedule(self, when: float, *, extend: bool = True) -> None:
        # Activity is recorded by time.monotonic; loop.time() may be a different clock, and rounded to milliseconds.
        self._scheduled = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()) + 0.001, self._check, extend)

    def _check(self, extend: bool) -> None:
        self._timer, self._scheduled = None, inf
        if self._idle_timeout is None:
            return
        now = monotonic()
        if now >= self._ends:
            self.abort(AnswerTimeout(f"the answer was not complete within {self._answer_timeout:g} s (answer_timeout)"))
            return
        last_token = max([self._started, *(activity.last_token for activity in self._activities)])
        last_activity = max([last_token, *(activity.last_keep_alive for activity in self._activities)])
        due = min(last_activity + self._idle_timeout, last_token + self._keep_alive_timeout)
        if now < due:
            self._schedule(min(due, self._ends))
        elif extend and now - due > _MAX_TIMER_LAG:
            self._schedule(now + (now - due), extend=False)
        else:
            self._interrupt(TimeoutError())
