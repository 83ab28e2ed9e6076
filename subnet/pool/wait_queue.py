"""Priority queue of requests waiting for node capacity."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Hashable
from contextlib import suppress
from itertools import count
from types import TracebackType

from subnet.errors import NodeBusy

# Shortest wait of a ticket that is not first before it checks its own timeout again, in seconds.
_MIN_WAIT = 0.25


_Key = tuple[str | None, Hashable]


class WaitQueue:
    """One queue for each model and kind of request, ordered by `priority` (lowest number first), then by arrival.

    Only the first ticket of a queue may take capacity, so no request overtakes another. It looks for capacity when
    `notify` is called, and again after each wait; when it leaves, the next ticket is notified. Requests of another
    kind have a queue of their own, because a node that one of them cannot use may be free for another.
    """

    def __init__(self) -> None:
        self._tickets: dict[_Key, list[Ticket]] = {}
        self._arrivals = count()

    def ticket(self, model: str | None, priority: int = 0, kind: Hashable = None) -> Ticket:
        """Create a ticket for a request that arrived now. It can enter the queue repeatedly and keeps its position."""
        return Ticket(self._tickets, (model, kind), (priority, next(self._arrivals)))

    def has_waiters(self, model: str | None) -> bool:
        """Return whether any request is queued for `model`."""
        return any(name == model for name, _ in self._tickets)

    def notify(self, model: str | None) -> None:
        """Wake the first ticket of each queue of `model`: a node that serves the model may have capacity now."""
        if not self._tickets:
            return
        first = [queue[0] for (name, _), queue in self._tickets.items() if name == model]
        for ticket in sorted(first, key=_sort_key):
            ticket.notify()


class Ticket:
    """Position of one request in its queue: `with ticket:` enters the queue and leaves it again."""

    def __init__(self, tickets: dict[_Key, list[Ticket]], key: _Key, sort_key: tuple[int, int]) -> None:
        self.sort_key = sort_key
        self._key = key
        self._tickets = tickets
        self._notified: asyncio.Event | None = None

    @property
    def is_first(self) -> bool:
        return self._tickets[self._key][0] is self

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
        insort(self._tickets.setdefault(self._key, []), self, key=_sort_key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        queue = self._tickets[self._key]
        del queue[bisect_left(queue, self.sort_key, key=_sort_key)]
        if queue:
            queue[0].notify()
        else:
            del self._tickets[self._key]


def _sort_key(ticket: Ticket) -> tuple[int, int]:
    return ticket.sort_key
