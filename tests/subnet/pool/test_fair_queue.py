"""The wait queue is fair between clients, and bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet import Limits, MockProtocol, RemoteManager, SessionManager
from subnet.budget import Budget, current_client
from subnet.errors import ClientLimited, NodeBusy, Overloaded
from subnet.pool.wait_queue import Ticket, WaitQueue
from tests.subnet.pool.test_priority import LONG_TIMEOUT, number, script, until


def ticket_of(queue: WaitQueue, client: Hashable, priority: int = 0) -> Ticket:
    """Return the ticket of a request of `client`."""
    token = current_client.set(client)
    try:
        return queue.ticket("m", priority)
    finally:
        current_client.reset(token)


class Waiting:
    """Tickets that wait in a queue, and are served in its order."""

    def __init__(self, queue: WaitQueue) -> None:
        self._queue = queue
        self._entered: dict[Ticket, ExitStack] = {}

    def enter(self, client: Hashable, priority: int = 0) -> None:
        ticket, stack = ticket_of(self._queue, client, priority), ExitStack()
        stack.enter_context(ticket)
        self._entered[ticket] = stack

    def serve(self) -> Hashable:
        """Serve the first ticket, and return its client."""
        first = next(ticket for ticket in self._entered if ticket.is_first)
        self._entered.pop(first).close()
        return first.client

    def __len__(self) -> int:
        return len(self._entered)


def test_one_request_is_not_behind_ten_thousand() -> None:
    """The only request of a client is served after one of a client that has 10,000 waiting, and so is each later one,
    however long the other has been waiting.
    """
    waiting = Waiting(WaitQueue())
    for _ in range(10_000):
        waiting.enter("many")
    for _ in range(3):
        waiting.enter("few")
        assert [waiting.serve(), waiting.serve()] in (["many", "few"], ["few", "many"])
        assert [waiting.serve() for _ in range(5)] == ["many"] * 5


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 40))
def test_clients_take_turns(arrivals: list[int], served_before: int) -> None:
    """While clients have requests waiting, none gets more than one turn more than another one."""
    waiting = Waiting(WaitQueue())
    for client in arrivals:
        waiting.enter(client)
    for _ in range(min(served_before, len(waiting) - 1)):
        waiting.serve()
    for client in arrivals:
        waiting.enter(client)
    order = [waiting.serve() for _ in range(len(waiting))]
    seen: Counter[Hashable] = Counter()
    for served in order:
        seen[served] += 1
        behind = [seen[other] for other in set(order) if seen[other] < order.count(other) and other != served]
        # When the count begins, the turns of two clients may differ by one.
        assert all(seen[served] <= others + 2 for others in behind)


def test_turns_count_only_within_a_priority() -> None:
    """A request of higher priority is served first, whoever it is from."""
    waiting = Waiting(WaitQueue())
    for client, priority in (("a", 0), ("b", -1), ("b", -1), ("a", 0)):
        waiting.enter(client, priority)
    assert [waiting.serve() for _ in range(4)] == ["b", "b", "a", "a"]


def test_unknown_clients_are_served_by_arrival() -> None:
    """Requests without a client do not take turns with themselves: a client's only request is not in front of them."""
    waiting = Waiting(WaitQueue())
    for client in (None, None, None, "a"):
        waiting.enter(client)
    assert [waiting.serve() for _ in range(4)] == [None, None, None, "a"]


def test_an_interrupted_answer_is_in_front() -> None:
    """A ticket that was served and enters the queue again is in front of all that were not, whatever its turn was."""
    queue = WaitQueue()
    served = ticket_of(queue, "a")
    with ticket_of(queue, "a"), served:
        pass
    with ticket_of(queue, "b") as other:
        other.check()
        with served:
            served.check()
            with pytest.raises(NodeBusy):
                other.check()


def test_an_interrupted_answer_does_not_bring_back_turns() -> None:
    """A client that arrives after one was served is behind those that wait, though it had no turn."""
    queue = WaitQueue()
    served = ticket_of(queue, "c")
    with served:
        pass
    waiting = Waiting(queue)
    waiting.enter("a")
    waiting.enter("a")
    assert waiting.serve() == "a"
    with served:
        served.check()
    waiting.enter("b")
    assert [waiting.serve(), waiting.serve()] == ["a", "b"]


async def test_an_interrupted_answer_takes_no_place() -> None:
    """An answer that has begun waits for another node though as many requests wait as may."""
    budget = Budget("Waiting requests", 1)
    queue = WaitQueue(budget)
    served = ticket_of(queue, "a")
    with served:
        pass
    with ticket_of(queue, "b") as other:
        await other.wait(0.0)
        with pytest.raises(Overloaded), ticket_of(queue, "a") as third:
            await third.wait(0.0)
        with served:
            await served.wait(0.0)
        assert budget.used == 1
    assert budget.used == 0


def test_retry_after_grows_with_the_queue() -> None:
    """A refused request is asked to return after the time that the queue needs, at the pace so far, up to a minute."""
    now = 0.0
    queue = WaitQueue(clock=lambda: now)
    waiting = Waiting(queue)
    for _ in range(20):
        waiting.enter("a")
    now = 1.0
    waiting.serve()
    waiting.serve()
    last, times = ticket_of(queue, "a"), []
    with last:
        for _ in range(3):
            with pytest.raises(NodeBusy) as caught:
                last.check()
            times.append(caught.value.retry_after)
            waiting.enter("a")
        now = 100.0
        with pytest.raises(NodeBusy) as caught:
            last.check()
    assert [*times, caught.value.retry_after] == [9.5, 10.0, 10.5, 60.0]


async def ask(manager: RemoteManager, name: int, client: Hashable, limits: Limits = LONG_TIMEOUT) -> None:
    current_client.set(client)
    async with SessionManager(manager, limits=limits).session() as session:
        await session.run(np.array([name]), None, lambda delta: None)


async def test_too_many_waiting_requests() -> None:
    """Beyond its share, a client's request is refused at once; beyond the whole, everyone's. Requests that have left
    the queue, whether served or cancelled, no longer count.
    """
    node = MockProtocol(script, capacity=1)
    budget = Budget("Waiting requests", 4, 0.5)
    async with RemoteManager([node], waiting=budget) as manager:
        await manager.ready()
        holder = asyncio.create_task(ask(manager, 0, "a"))
        await until(lambda: node.open == 1)
        tasks = [asyncio.create_task(ask(manager, name, client)) for name, client in enumerate("aabb", 1)]
        await until(lambda: budget.used == 4)
        with pytest.raises(Overloaded):
            await ask(manager, 9, "c")
        tasks[0].cancel()
        await until(lambda: budget.used == 3)
        with pytest.raises(ClientLimited) as caught:
            await ask(manager, 9, "b")
        assert caught.value.retry_after
        tasks[0] = asyncio.create_task(ask(manager, 5, "a"))
        await until(lambda: budget.used == 4)
        holder.cancel()
        await asyncio.gather(*tasks)
        assert budget.used == 0
    assert sorted(number(request) for request in node.requests) == [0, 2, 3, 4, 5]
