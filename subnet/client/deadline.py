"""Notices silence, and can break a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from math import inf
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

# A timer that is later than this, in seconds, tells that this process had no time for anything.
_HELD_UP = 0.1


class Pulse:
    """When there was something of what is waited for (`heard`), and when no more than a sign of life (`alive`), by
    time.monotonic.
    """

    __slots__ = ("alive", "heard")

    def __init__(self) -> None:
        self.heard = 0.0
        self.alive = 0.0


class Watchdog:
    """Bounds the silence of what one task at a time waits for.

    asyncio.timeout would set and cancel a timer for every token. Here there is one timer, which looks, when it
    fires, how much longer it should have waited; a token costs a clock reading, kept in a pulse. Close it when done.

    When it fires late, the silence may be this process's own deafness: it waits once more, as long as it was late, for
    what came meanwhile to be read.
    """

    __slots__ = ("_end", "_error", "_loop", "_most", "_next", "_patience", "_pulses", "_since", "_timer", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._next = inf
        self._waiting: asyncio.Task[object] | None = None
        self._patience: float | None = None
        self._most = inf
        self._since = 0.0
        self._pulses: Sequence[Pulse] = ()
        self._error: Exception | None = None
        self._end: Exception | None = None

    async def wait(
        self,
        awaitable: Awaitable[T],
        seconds: float | None = None,
        most: float = inf,
        pulses: Sequence[Pulse] = (),
        *,
        then: float = inf,
    ) -> T:
        """What `awaitable` gives. Raises TimeoutError when for `seconds` neither it ended nor one of `pulses` heard
        anything, nor was alive, which alone counts for `most` seconds; or the error that `end` was given. `then` is
        the patience that `expect` will be given later: when it is the shorter one, the timer fires early once, and
        `expect` need not set another.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        if self._end is not None:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise self._end
        self._begin(task, most, pulses)
        self.expect(seconds, then)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Someone else may have cancelled the task at the same time: then that counts.
            if self._error is not None and task.uncancel() <= cancelling:
                raise (self._end or self._error) from None
            raise
        finally:
            self._waiting, self._patience, self._pulses = None, None, ()

    def expect(self, seconds: float | None, then: float = inf) -> None:
        """From now on so many seconds of silence are too much, None: any; `then` as in `wait`."""
        self._patience = seconds
        self._since = monotonic()
        if seconds is not None and (look := self._since + min(seconds, then)) < self._next:
            self.close()
            self._look_at(look)

    def end(self, error: Exception) -> None:
        """Raise `error`, the first that is given, at whoever waits now, and at all who would wait after that."""
        self._end = self._end or error
        self._interrupt(self._end)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._next = None, inf

    def _begin(self, task: asyncio.Task[object], most: float, pulses: Sequence[Pulse]) -> None:
        self._waiting, self._error, self._most, self._pulses = task, None, most, pulses

    def _interrupt(self, error: Exception) -> None:
        if self._waiting is not None and self._error is None:
            self._error = error
            self._waiting.cancel()

    def _look_at(self, when: float, *, again: bool = True) -> None:
        # By the clock of the pulses: that of a loop may be another. A loop may round to whole milliseconds.
        self._next = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()) + 0.001, self._look, again)

    def _look(self, again: bool) -> None:
        self._timer, self._next = None, inf
        if self._patience is None:
            return
        now = monotonic()
        heard = max([self._since, *(pulse.heard for pulse in self._pulses)])
        alive = max([heard, *(pulse.alive for pulse in self._pulses)])
        due = min(alive + self._patience, heard + self._most)
        if now < due:
            self._look_at(due)
        elif again and now - due > _HELD_UP:
            self._look_at(now + (now - due), again=False)
        else:
            self._interrupt(TimeoutError())
