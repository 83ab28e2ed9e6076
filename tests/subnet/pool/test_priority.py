"""Order in which sessions that wait for capacity are served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from subnet import Limits, MockProtocol, RemoteManager, SessionManager
from subnet.errors import NodeBusy
from subnet.protocols.mock import Pause, Step
from subnet.tensors import unpack
from subnet.wire.messages import Generate

LONG_TIMEOUT = Limits(queue_timeout=60.0)


def number(request: Generate) -> int:
    """The prompt's only token, which identifies a request in these tests."""
    return int(unpack(request.prompt)[0])


def script(request: Generate) -> list[Step]:
    """One token for each request, except that request 0 never ends."""
    return [Pause()] if number(request) == 0 else [1]


async def ask(manager: RemoteManager, name: int, priority: int = 0, limits: Limits = LONG_TIMEOUT) -> None:
    async with SessionManager(manager, limits=limits).session(priority=priority) as session:
        await session.run(np.array([name]), None, lambda delta: None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def held() -> AsyncIterator[tuple[MockProtocol, RemoteManager, asyncio.Task[None]]]:
    """A node with one slot, and the task of request 0, which holds the slot until it is cancelled."""
    node = MockProtocol(script, capacity=1)
    async with RemoteManager([node]) as manager:
        await manager.ready()
        holder = asyncio.create_task(ask(manager, 0))
        await until(lambda: node.open == 1)
        yield node, manager, holder


async def test_a_free_slot_goes_by_priority_then_arrival() -> None:
    """Queued requests get a free slot one after another, by priority (lowest number first), then by arrival."""
    async with held() as (node, manager, holder):
        async with asyncio.TaskGroup() as tasks:
            for name, priority in ((1, 5), (2, 0), (3, -5), (4, 0), (5, -5)):
                tasks.create_task(ask(manager, name, priority))
                await asyncio.sleep(0)
            holder.cancel()
        assert [number(request) for request in node.requests] == [0, 3, 5, 2, 4, 1]


async def test_no_request_overtakes() -> None:
    """A request that arrives while a slot is free, but others are queued, is served after them."""
    async with held() as (node, manager, holder):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask(manager, 1))
            await asyncio.sleep(0)
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)
            tasks.create_task(ask(manager, 2))
        assert [number(request) for request in node.requests] == [0, 1, 2]


async def test_a_request_waits_no_longer_than_queue_timeout() -> None:
    """A queued request is refused after its queue_timeout even if it is not first; the first keeps waiting."""
    async with held() as (node, manager, holder):
        first = asyncio.create_task(ask(manager, 1))
        await asyncio.sleep(0)
        with pytest.raises(NodeBusy, match="capacity"):
            await ask(manager, 2, limits=Limits(queue_timeout=0.01))
        holder.cancel()
        await first
        assert [number(request) for request in node.requests] == [0, 1]
