"""Priority queue of requests waiting for node capacity."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from types import TracebackType

from subnet.errors import NodeBusy

# Shortest wait of a ticket that is not first before it checks its own timeout again, in seconds.
_MIN_WAIT = 0.25


class WaitQueue:
    """One queue per model, ordered by `priority` (lowest number first), then by arrival.

    Only the first ticket of a queue may take capacity, so no request overtakes another. It looks for capacity when
    `notify` is called, and again after each wait; when it leaves, the next ticket is notified.
    """

    def __init__(self) -> None:
        self._tickets: dict[str | None, list[Ticket]] = {}
        self._arrivals = count()

    def ticket(self, model: str | None, priority: int = 0) -> Ticket:
        """Create a ticket for a request that arrived now. It can enter the queue repeatedly and keeps its position."""
        return Ticket(self._tickets, model, (priority, next(self._arrivals)))

    def has_waiters(self, model: str | None) -> bool:
        """Return whether any request is queued for `model`."""
        return model in self._tickets

    def notify(self, model: str | None) -> None:
        """Wake the first ticket of `model`: a node that serves the model may have capacity now."""
        _notify_first(self._tickets.get(model, ()))


class Ticket:
    """Position of one request in the queue of its model: `with ticket:` enters the queue and leaves it again."""

    def __init__(self, tickets: dict[str | None, list[Ticket]], model: str | None, sort_key: tuple[int, int]) -> None:
        self.sort_key = sort_key
        self._model = model
        self._tickets = tickets
        self._notified: asyncio.Event | None = None

    @property
    def is_first(self) -> bool:
        return self._tickets[self._model][0] is self

    def check(self) -> None:
        """Raise NodeBusy unless this ticket is the first of its queue."""
        if not self.is_first:
            raise NodeBusy("all nodes are at capacity and other requests are queued", retry_after=1.0)

    async def wait(self, seconds: float) -> None:
        """Wait until notified, but at most `seconds`, or _MIN_WAIT if that is longer and the ticket is not first."""
        self._notified = self._notified or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.is_first else max(seconds, _MIN_WAIT)):
                await self._notified.wait()
        self._notified.clear()

    def notify(self) -> None:
        """End the current wait, or the next one if none is in progress."""
        self._notified = self._notified or asyncio.Event()
        self._notified.set()

    def __enter__(self) -> Ticket:
        insort(self._tickets.setdefault(self._model, []), self, key=_sort_key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        queue = self._tickets[self._model]
        del queue[bisect_left(queue, self.sort_key, key=_sort_key)]
        if not queue:
            del self._tickets[self._model]
        _notify_first(queue)


def _sort_key(ticket: Ticket) -> tuple[int, int]:
    return ticket.sort_key


def _notify_first(queue: Sequence[Ticket]) -> None:
    if queue:
        queue[0].notify()
