"""Priority queue of requests waiting for node capacity, fair between clients."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable
from contextlib import suppress
from itertools import count
from time import monotonic
from types import TracebackType

from subnet.budget import MAX_RETRY_AFTER, Budget, current_client
from subnet.errors import NodeBusy

# Shortest wait of a ticket that is not first before it checks its own timeout again, in seconds.
_MIN_WAIT = 0.25
_MIN_RETRY_AFTER = 1.0


_Key = tuple[str | None, Hashable]


class WaitQueue:
    """One queue for each model and kind of request, ordered by `priority` (lowest number first), then by turns of the
    clients, then by arrival. So the only request of one client is behind one request of each other client, and not
    behind all of them. Requests whose client is unknown each count as a client of their own.

    Only the first ticket of a queue may take capacity, so no request overtakes another. It looks for capacity when
    `notify` is called, and again after each wait; when it leaves, the next ticket is notified. Requests of another
    kind have a queue of their own, because a node that one of them cannot use may be free for another.

    Tickets that wait take a unit of `waiting`, unless they have been served before. `clock` returns monotonic time in
    seconds.
    """

    def __init__(self, waiting: Budget | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._queues: dict[_Key, _Queue] = {}
        self._arrivals = count()
        self._waiting = waiting
        self._clock = clock

    def ticket(self, model: str | None, priority: int = 0, kind: Hashable = None) -> Ticket:
        """Create a ticket for a request of the current client that arrived now. It can enter the queue repeatedly and
        keeps its position; once it was served, it is in front of those that were not.
        """
        return Ticket(self, (model, kind), priority, next(self._arrivals))

    def has_waiters(self, model: str | None) -> bool:
        """Return whether any request is queued for `model`."""
        return any(name == model for name, _ in self._queues)

    def notify(self, model: str | None) -> None:
        """Wake the first ticket of each queue of `model`: a node that serves the model may have capacity now."""
        if not self._queues:
            return
        first = [queue.tickets[0] for (name, _), queue in self._queues.items() if name == model]
        for ticket in sorted(first, key=_arrival_key):
            ticket.notify()

    def enter(self, ticket: Ticket) -> _Queue:
        """Add a ticket to its queue, which is created if necessary, and return the queue."""
        queue = self._queues.get(ticket.key)
        if queue is None:
            queue = self._queues[ticket.key] = _Queue(self._clock)
        queue.add(ticket)
        return queue

    def leave(self, ticket: Ticket, queue: _Queue, *, served: bool) -> None:
        """Remove a ticket from its queue, and the queue itself if it is empty then."""
        queue.remove(ticket, served=served)
        if not queue.tickets:
            del self._queues[ticket.key]

    def take_place(self, ticket: Ticket, retry_after: float) -> None:
        """Take a unit of the budget of waiting requests. Raises Overloaded and ClientLimited."""
        if self._waiting is not None:
            self._waiting.take(ticket.client, retry_after=retry_after)

    def release_place(self, ticket: Ticket) -> None:
        """Return the unit that the ticket has taken."""
        if self._waiting is not None:
            self._waiting.release(ticket.client)


class _Queue:
    """Queue of one model and kind of request. It exists while it has tickets.

    Turns are those of start-time fair queueing: a ticket's turn follows that of its client's last ticket, or that of
    the last ticket served if this is later.
    """

    __slots__ = ("_clock", "_created", "_last", "_served", "_turn", "tickets")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tickets: list[Ticket] = []
        self._clock = clock
        self._created = clock()
        self._served = 0
        # Turn of the last ticket served, and of each client its number of tickets and the last turn of them.
        self._turn = 0
        self._last: dict[Hashable, tuple[int, int]] = {}

    @property
    def retry_after(self) -> float:
        """Estimated time until all tickets are served, in seconds, from the time that the others took."""
        pace = (self._clock() - self._created) / max(1, self._served)
        return min(MAX_RETRY_AFTER, max(_MIN_RETRY_AFTER, pace * len(self.tickets)))

    def add(self, ticket: Ticket) -> None:
        if not ticket.was_served:
            tickets, last = self._last.get(ticket.client, (0, 0))
            ticket.turn = max(self._turn, 0 if ticket.client is None else last) + 1
            self._last[ticket.client] = tickets + 1, ticket.turn
        insort(self.tickets, ticket, key=_sort_key)

    def remove(self, ticket: Ticket, *, served: bool) -> None:
        del self.tickets[bisect_left(self.tickets, _sort_key(ticket), key=_sort_key)]
        if not ticket.was_served:
            tickets, last = self._last.pop(ticket.client)
            if tickets > 1:
                self._last[ticket.client] = tickets - 1, last
        if served:
            self._served += 1
            self._turn = max(self._turn, ticket.turn)
        if self.tickets:
            self.tickets[0].notify()


class Ticket:
    """Position of one request in its queue: `with ticket:` enters the queue and leaves it again.

    Leaving it without an exception means that the request was served. Before, its `turn` is at least 1.
    """

    __slots__ = (
        *("_has_place", "_notified", "_queue", "_queues"),
        *("arrival", "client", "key", "priority", "turn", "was_served"),
    )

    def __init__(self, queues: WaitQueue, key: _Key, priority: int, arrival: int) -> None:
        self.key = key
        self.client = current_client.get()
        self.priority = priority
        self.arrival = arrival
        self.turn = 0
        self.was_served = False
        self._queues = queues
        self._queue: _Queue | None = None
        self._notified: asyncio.Event | None = None
        self._has_place = False

    @property
    def is_first(self) -> bool:
        assert self._queue is not None
        return self._queue.tickets[0] is self

    def check(self) -> None:
        """Raise NodeBusy unless this ticket is the first of its queue."""
        if not self.is_first:
            assert self._queue is not None
            message = "all nodes are at capacity and other requests are queued"
            raise NodeBusy(message, retry_after=self._queue.retry_after)

    async def wait(self, seconds: float) -> None:
        """Wait until notified, but at most `seconds`, or _MIN_WAIT if that is longer and the ticket is not first.

        Raises Overloaded or ClientLimited at once if too many requests wait already.
        """
        self._take_place()
        self._notified = self._notified or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.is_first else max(seconds, _MIN_WAIT)):
                await self._notified.wait()
        self._notified.clear()

    def notify(self) -> None:
        """End the current wait, or the next one if none is in progress."""
        self._notified = self._notified or asyncio.Event()
        self._notified.set()

    def _take_place(self) -> None:
        # An answer that has begun is never given up for others.
        if not self._has_place and not self.was_served:
            assert self._queue is not None
            self._queues.take_place(self, self._queue.retry_after)
            self._has_place = True

    def __enter__(self) -> Ticket:
        self._queue = self._queues.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._queue is not None
        self._queues.leave(self, self._queue, served=kind is None)
        self._queue = None
        if self._has_place:
            self._queues.release_place(self)
            self._has_place = False
        if kind is None:
            self.turn, self.was_served = 0, True


def _sort_key(ticket: Ticket) -> tuple[int, int, int]:
    return ticket.priority, ticket.turn, ticket.arrival


def _arrival_key(ticket: Ticket) -> tuple[int, int]:
    return ticket.priority, ticket.arrival
