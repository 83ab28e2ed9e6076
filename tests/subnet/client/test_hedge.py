"""Hedged requests: when a second node is used, which answer wins, and that the loser is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from subnet import MockProtocol, RemoteManager, SessionManager
from subnet.aio import Sink
from subnet.authorizers import AuthorizerBase
from subnet.client.race import Hedger
from subnet.client.timeouts import Limits
from subnet.errors import EngineFailed, NodeError
from subnet.generation import Delta
from subnet.pool.deployment import Deployment
from subnet.pool.node import RemoteNode
from subnet.protocols.mock import Pause
from subnet.wire.messages import Generate


def deployment() -> Deployment:
    return Deployment(RemoteNode(MockProtocol()), "mock")


def warmed_up(hedger: Hedger, *deployments: Deployment) -> Hedger:
    """Let `hedger` have seen first tokens after 10 ms on these deployments."""
    for one in deployments:
        for _ in range(100):
            hedger.delay(one)
            hedger.record_first_token(one, 0.01)
    return hedger


async def warm_up(hedger: Hedger, manager: RemoteManager) -> None:
    """Wait until all nodes are healthy, and let `hedger` have seen their first tokens."""
    while any(remote.unreachable_reason for remote in manager.remotes):
        await asyncio.sleep(0)
    warmed_up(hedger, *(remote.deployment("mock") for remote in manager.remotes))


def test_hedging_is_off_by_default() -> None:
    """Requests are hedged only if a quantile is set, and only after 20 first tokens were recorded."""
    one = deployment()
    off, new = Hedger(), Hedger(0.9)
    for hedger in (off, new):
        for _ in range(19):
            hedger.record_first_token(one, 1.0)
        assert hedger.delay(one) is None
        hedger.record_first_token(one, 1.0)
    assert (off.delay(one), new.delay(one)) == (None, 1.0)


def test_delay_is_the_quantile_of_recent_first_tokens() -> None:
    """For first tokens after 1 to 100 seconds, the 0.9 quantile is 90 seconds."""
    hedger, one = Hedger(0.9), deployment()
    for seconds in range(1, 101):
        hedger.record_first_token(one, float(seconds))
    assert hedger.delay(one) == 90.0


def test_each_deployment_has_its_own_delay() -> None:
    """A model that is slow to its first token is not hedged as early as a fast one."""
    hedger, slow, fast, new = Hedger(0.9), deployment(), deployment(), deployment()
    for _ in range(20):
        hedger.record_first_token(slow, 20.0)
        hedger.record_first_token(fast, 0.1)
    assert [hedger.delay(one) for one in (slow, fast, new)] == [20.0, 0.1, None]


def test_the_share_of_hedged_requests_is_bounded() -> None:
    """With a share of 0.1, about 50 of 500 requests are hedged, however late their first tokens are."""
    one = deployment()
    hedger = warmed_up(Hedger(0.95, share=0.1), one)
    allowed = 0
    for _ in range(500):
        hedger.delay(one)
        allowed += hedger.try_hedge()
    assert 40 <= allowed <= 60


@asynccontextmanager
async def generate_hedged(
    first: MockProtocol, second: MockProtocol, hedger: Hedger
) -> AsyncIterator[tuple[list[int], RemoteManager]]:
    async with RemoteManager([first, second], probe_interval=60.0) as manager:
        await warm_up(hedger, manager)
        limits = Limits(first_token_timeout=5.0, inter_token_timeout=5.0, max_attempts=1)
        async with SessionManager(manager, limits=limits, hedger=hedger).session() as session:
            yield [t async for delta in session.generate([1]) for t in delta.tokens], manager


async def test_the_faster_node_wins() -> None:
    """When the second node is faster, its answer is used, the first is cancelled, and both stay healthy."""
    slow, fast = MockProtocol([Pause(), 10], peer="slow"), MockProtocol([20, 21], peer="fast")
    async with generate_hedged(slow, fast, Hedger(0.95, 1.0)) as (tokens, manager):
        assert tokens == [20, 21]
        assert (slow.open, slow.cancelled, fast.open) == (0, 1, 0)
        assert [remote.running for remote in manager.remotes] == [0, 0]
        assert [remote.unreachable_reason for remote in manager.remotes] == [None, None]


async def test_the_first_node_may_still_win() -> None:
    """A second node that is slower than the first is cancelled as soon as the first sends a token."""
    late, later = MockProtocol([Pause(0.1), 10], peer="late"), MockProtocol([Pause(), 20], peer="later")
    async with generate_hedged(late, later, Hedger(0.95, 1.0)) as (tokens, manager):
        assert tokens == [10]
        assert (later.open, later.cancelled) == (0, 1)
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_without_hedging_one_node_is_used() -> None:
    """A second node gets no request while hedging is off, even if the first token is late."""
    late, other = MockProtocol([Pause(0.05), 10], peer="late"), MockProtocol([20], peer="other")
    async with generate_hedged(late, other, Hedger()) as (tokens, _):
        assert tokens == [10]
    assert not other.requests


async def test_an_error_of_one_node_leaves_the_other_running() -> None:
    """If the second node fails, the first continues; if both fail, the session raises and both leases are released."""
    slow, broken = MockProtocol([Pause(0.1), 10], peer="slow"), MockProtocol([EngineFailed("x")], peer="broken")
    async with generate_hedged(slow, broken, Hedger(0.95, 1.0)) as (tokens, manager):
        assert tokens == [10]
        assert [remote.last_error for remote in manager.remotes] == ["", "x"]
    slow.script = [Pause(0.1), EngineFailed("y")]
    async with RemoteManager([slow, broken], probe_interval=60.0) as manager:
        hedger = Hedger(0.95, 1.0)
        await warm_up(hedger, manager)
        async with SessionManager(manager, limits=Limits(max_attempts=1), hedger=hedger).session() as session:
            with pytest.raises(NodeError):
                await anext(session.generate([1]))
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_an_error_before_the_delay_is_not_hedged() -> None:
    """A node that fails before the hedging delay is not hedged; a retry is up to the session."""
    broken, other = MockProtocol([EngineFailed("x")], peer="broken"), MockProtocol([20], peer="other")
    with pytest.raises(EngineFailed):
        async with generate_hedged(broken, other, Hedger(0.95, 1.0)):
            raise AssertionError
    assert not other.requests


class Lingering(MockProtocol):
    """Node that sends nothing and takes long to end after it was cancelled."""

    def __init__(self, peer: str) -> None:
        super().__init__([], peer=peer)
        self.called, self.cancelling, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        self.called.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelling.set()
            await self.may_end.wait()


async def test_a_second_cancellation_releases_both_leases() -> None:
    """Cancelling again while both nodes are still ending returns at once and releases both leases."""
    nodes = [Lingering("a"), Lingering("b")]
    async with RemoteManager(nodes, probe_interval=60.0) as manager:
        hedger = Hedger(0.95, 1.0)
        await warm_up(hedger, manager)
        async with SessionManager(manager, hedger=hedger).session() as session:
            task = asyncio.create_task(session.run([1], None, lambda delta: None))
            for node in nodes:
                await node.called.wait()
            task.cancel()
            for node in nodes:
                await node.cancelling.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [remote.running for remote in manager.remotes] == [0, 0]
