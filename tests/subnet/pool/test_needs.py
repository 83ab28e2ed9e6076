"""Leases and the queue for requests that only some nodes support."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from subnet import Limits, MockProtocol, RemoteManager, Sampling, SessionManager
from subnet.chat import ChatRequest
from subnet.errors import ContextLengthExceeded, NodeBusy, NodeLost, NoNodeAvailable
from subnet.generation import RequestSize, needs_of
from subnet.node_info import Capabilities, Placement
from subnet.pool.requirements import Requirements
from subnet.pool.wait_queue import Ticket, WaitQueue
from subnet.protocols.base import Protocol
from subnet.protocols.mock_chat import MockChatProtocol

MIN_P = Sampling(min_p=0.1)
NEEDS = needs_of(MIN_P)
TOO_LONG = ContextLengthExceeded("This model's maximum context length is 8 tokens.")
ABLE = Capabilities(resume="exact", min_p=True)


def able(peer: str = "able", capacity: int = 1, context_length: int = 4096) -> MockProtocol:
    return MockProtocol([1], peer=peer, capabilities=ABLE, capacity=capacity, context_length=context_length)


def plain() -> MockProtocol:
    return MockProtocol([2], peer="plain")


@asynccontextmanager
async def managing(*nodes: Protocol) -> AsyncIterator[RemoteManager]:
    """Yield a manager once all of `nodes` are healthy."""
    async with RemoteManager(nodes, probe_interval=60.0) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        yield manager


async def tokens_of(manager: RemoteManager, sampling: Sampling) -> list[int]:
    limits = Limits(queue_timeout=30.0)
    async with SessionManager(manager, limits=limits).session("mock") as session:
        return [token async for delta in session.generate([1], sampling) for token in delta.tokens]


async def test_a_full_capable_node_is_waited_for() -> None:
    """A request for a full node waits for it, and does not hold up requests that another node supports."""
    async with managing(plain(), able()) as manager:
        taken = manager.lease("mock", requirements=Requirements(needs=NEEDS))
        waiting = asyncio.create_task(tokens_of(manager, MIN_P))
        while not manager.wait_queue.has_waiters("mock"):
            await asyncio.sleep(0)
        assert await tokens_of(manager, Sampling()) == [2]
        assert not waiting.done()
        taken.succeeded()
        manager.wait_queue.notify("mock")
        assert await waiting == [1]


async def test_candidates() -> None:
    """Only capable nodes are candidates, also among those with enough context; all are if none is capable."""
    async with managing(plain(), able(context_length=8)) as manager:
        manager.lease("mock", requirements=Requirements(needs=NEEDS))
        with pytest.raises(NodeBusy):
            manager.lease("mock", requirements=Requirements(needs=NEEDS))
        with pytest.raises(NodeBusy):
            manager.lease("mock", requirements=Requirements(needs=NEEDS, size=RequestSize(100, 0, 1)))
        assert (
            manager.lease("mock", requirements=Requirements(needs=needs_of(Sampling(top_k=3)))).remote.peer == "plain"
        )


async def test_a_capable_node_that_failed() -> None:
    """Once a capable node has failed a request, nodes that do not support it are not candidates."""
    async with managing(plain(), able()) as manager:
        manager.lease("mock", requirements=Requirements(needs=NEEDS)).failed(NodeLost("gone"))
        with pytest.raises(NoNodeAvailable):
            manager.lease("mock", {"able"}, requirements=Requirements(needs=NEEDS))
        assert manager.lease("mock", requirements=Requirements(needs=NEEDS)).remote.peer == "plain"


async def test_other_nodes_are_those_that_support_the_request() -> None:
    """has_other counts only capable nodes, unless there are none."""
    async with managing(plain(), able()) as manager:
        assert manager.has_other("mock", {"able"})
        assert not manager.has_other("mock", {"able"}, requirements=Requirements(needs=NEEDS))
        assert manager.has_other("mock", {"able"}, requirements=Requirements(needs=needs_of(Sampling(top_k=3))))


async def test_the_first_of_each_queue_is_woken_in_order() -> None:
    """Requests with other needs do not wait for one another; of those that could take a slot, the first gets it."""
    queue, woken = WaitQueue(), []

    async def wait(ticket: Ticket, name: str) -> None:
        with ticket:
            assert ticket.is_first
            await ticket.wait(1000.0)
            woken.append(name)

    late, early = queue.ticket("m", 1), queue.ticket("m", 0, NEEDS)
    waiting = [asyncio.create_task(wait(*each)) for each in ((late, "late"), (early, "early"))]
    await asyncio.sleep(0)
    queue.notify("other")
    queue.notify("m")
    await asyncio.gather(*waiting)
    assert woken == ["early", "late"]
    assert not queue.has_waiters("m")


async def test_a_longer_context_that_does_not_support_the_request() -> None:
    """A request that the only capable node refuses as too long is not sent again, though another has more context."""
    small = MockProtocol([TOO_LONG], peer="small", capabilities=ABLE, context_length=8)
    async with managing(small, plain()) as manager:
        with pytest.raises(ContextLengthExceeded):
            await tokens_of(manager, MIN_P)
    assert len(small.requests) == 1


class Named(Protocol):
    """A node for which the settings name its model, so that it may be served on both lanes."""

    def placement(self, model: str) -> Placement:
        return Placement(named=True)


class NamedNode(Named, MockProtocol): ...


class NamedServer(Named, MockChatProtocol): ...


async def test_the_chat_lane_does_not_wait_for_the_token_lane() -> None:
    """A request that waits for a full node on one lane does not hold up those of the other lane."""
    async with managing(NamedNode([1], capacity=1), NamedServer(["Hi"])) as manager:
        taken = manager.lease("mock")
        waiting = asyncio.create_task(tokens_of(manager, Sampling()))
        while not manager.wait_queue.has_waiters("mock"):
            await asyncio.sleep(0)
        texts: list[str] = []
        async with SessionManager(manager).session("mock") as session:
            request = ChatRequest(model="mock", body={"messages": [{"role": "user", "content": "Hi"}]})
            await session.chat(request, lambda delta: texts.append(delta.text))
        assert "".join(texts) == "Hi"
        assert not waiting.done()
        taken.succeeded()
        manager.wait_queue.notify("mock")
        assert await waiting == [1]
