"""The wait queue: order of the tickets, and that none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import NodeBusy
from subnet.pool.wait_queue import Ticket, WaitQueue

# Seconds, longer than any test: a ticket that waits so long was never notified.
LONG = 1000.0


Name = tuple[int, int]


class Slots:
    """Slots that queued requests take one by one; `served` are the requests' names in the order served."""

    def __init__(self, queue: WaitQueue) -> None:
        self.free = 0
        self.served: list[Name] = []
        self._queue = queue

    def add(self, slots: int = 1) -> None:
        self.free += slots
        self._queue.notify("m")

    async def take(self, ticket: Ticket, name: Name) -> None:
        with ticket:
            while not (ticket.is_first and self.free):
                await ticket.wait(LONG)
            self.free -= 1
            self.served.append(name)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.integers(1, 4))
def test_free_slots_go_by_priority_then_arrival(priorities: list[int], slots: int) -> None:
    """Free slots go to requests by priority, then by arrival, however many slots become free at a time."""

    async def run() -> None:
        queue = WaitQueue()
        pool = Slots(queue)
        tickets = [(queue.ticket("m", priority), (priority, n)) for n, priority in enumerate(priorities)]
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            # The tickets enter the queue in another order than they were created.
            for ticket, name in reversed(tickets):
                tasks.create_task(pool.take(ticket, name))
            await asyncio.sleep(0)
            while len(pool.served) < len(priorities):
                expected = min(len(priorities), len(pool.served) + slots)
                pool.add(slots)
                await until(lambda expected=expected: len(pool.served) >= expected)  # type: ignore[misc]
        assert pool.served == sorted(pool.served)

    asyncio.run(run())


async def test_a_late_ticket_of_higher_priority_is_first() -> None:
    """A ticket of higher priority enters in front of those already queued, and no other ticket passes the check."""
    queue = WaitQueue()
    with queue.ticket("m") as early, queue.ticket("m", 5) as late:
        early.check()
        with queue.ticket("m", -1) as urgent:
            for other in (early, late):
                with pytest.raises(NodeBusy):
                    other.check()
            urgent.check()
        early.check()


async def test_a_leaving_ticket_notifies_the_next() -> None:
    """The next ticket looks for capacity as soon as the first leaves the queue, without a call of notify."""
    queue = WaitQueue()
    pool = Slots(queue)
    first, second = (asyncio.create_task(pool.take(queue.ticket("m"), name)) for name in ((0, 0), (0, 1)))
    await asyncio.sleep(0)
    pool.free = 1
    first.cancel()
    async with asyncio.timeout(20):
        await second
    assert pool.served == [(0, 1)]


async def test_a_ticket_keeps_its_position() -> None:
    """A ticket that left the queue and enters it again goes in front of tickets created after it."""
    queue = WaitQueue()
    ticket = queue.ticket("m")
    with ticket:
        ticket.check()
    with queue.ticket("m") as later:
        later.check()
        with ticket, pytest.raises(NodeBusy):
            later.check()
        later.check()


async def test_each_model_has_its_own_queue() -> None:
    """Tickets of different models are all first in their queues, and notifying an unknown model does nothing."""
    queue = WaitQueue()
    with queue.ticket("m") as one, queue.ticket("other", 7) as other, queue.ticket(None) as any_model:
        queue.notify("unknown")
        assert not queue.has_waiters("unknown")
        for ticket in (one, other, any_model):
            ticket.check()
        assert queue.has_waiters("m")
    assert not queue.has_waiters("m")


async def test_the_first_ticket_stops_waiting_by_itself() -> None:
    """The wait of the first ticket ends after the given time, even if nothing notifies it."""
    with WaitQueue().ticket("m") as ticket:
        async with asyncio.timeout(20):
            await ticket.wait(0.001)
        ticket.check()


async def test_a_notification_before_the_wait_is_not_lost() -> None:
    """A notification that arrives before the wait starts ends the wait at once."""
    queue = WaitQueue()
    with queue.ticket("m") as ticket:
        queue.notify("m")
        async with asyncio.timeout(20):
            await ticket.wait(LONG)
