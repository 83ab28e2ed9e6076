"""Hedging: when a second node is asked, and that nothing of the loser is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from subnet import MockProtocol, RemoteManager, SessionManager
from subnet.client.race import Hedger
from subnet.client.timeouts import Limits
from subnet.errors import EngineFailed, NodeError
from subnet.generation import DeltaSink
from subnet.protocols.base import Check
from subnet.protocols.mock import Pause
from subnet.wire.messages import Generate


def warm(quantile: float = 0.95, share: float = 1.0) -> Hedger:
    hedger = Hedger(quantile, share)
    for _ in range(100):
        hedger.delay()
        hedger.record_first_token(0.01)
    return hedger


def test_off_by_default() -> None:
    """Nothing is hedged unless a quantile is set, nor before enough is known."""
    off, new = Hedger(), Hedger(0.9)
    for hedger in (off, new):
        for _ in range(19):
            hedger.record_first_token(1.0)
        assert hedger.delay() is None
        hedger.record_first_token(1.0)
    assert (off.delay(), new.delay()) == (None, 1.0)


def test_the_quantile_of_recent_first_tokens() -> None:
    """Of the times 1 to 100, nine tenths lie within 90."""
    hedger = Hedger(0.9)
    for seconds in range(1, 101):
        hedger.record_first_token(float(seconds))
    assert hedger.delay() == 90.0


def test_the_share_is_bounded() -> None:
    """However late first tokens are, only that share of requests asks a second node."""
    hedger = warm(share=0.1)
    allowed = 0
    for _ in range(500):
        hedger.delay()
        allowed += hedger.try_hedge()
    assert 40 <= allowed <= 60


@asynccontextmanager
async def raced(
    slow: MockProtocol, quick: MockProtocol, hedger: Hedger
) -> AsyncIterator[tuple[list[int], RemoteManager]]:
    async with RemoteManager([slow, quick], probe_interval=60.0) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        limits = Limits(first_token_timeout=5.0, inter_token_timeout=5.0, max_attempts=1)
        async with SessionManager(manager, limits=limits, hedger=hedger).session() as session:
            yield [t async for delta in session.generate([1]) for t in delta.tokens], manager


async def test_the_quicker_one_wins() -> None:
    """The answer is the second node's; the first is cancelled, and neither is held to be bad."""
    slow, quick = MockProtocol([Pause(), 10], peer="slow"), MockProtocol([20, 21], peer="quick")
    async with raced(slow, quick, warm()) as (tokens, manager):
        assert tokens == [20, 21]
        assert (slow.open, slow.cancelled, quick.open) == (0, 1, 0)
        assert [remote.running for remote in manager.remotes] == [0, 0]
        assert [remote.unreachable_reason for remote in manager.remotes] == [None, None]


async def test_the_first_may_still_win() -> None:
    """A second node that is later still is cancelled at once."""
    late, later = MockProtocol([Pause(0.1), 10], peer="late"), MockProtocol([Pause(), 20], peer="later")
    async with raced(late, later, warm()) as (tokens, manager):
        assert tokens == [10]
        assert (later.open, later.cancelled) == (0, 1)
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_without_hedging_nobody_else_is_asked() -> None:
    """Off, the second node hears nothing."""
    late, other = MockProtocol([Pause(0.05), 10], peer="late"), MockProtocol([20], peer="other")
    async with raced(late, other, Hedger()) as (tokens, _):
        assert tokens == [10]
    assert not other.requests


async def test_an_error_leaves_the_race_to_the_other() -> None:
    """The second may fail: the first goes on. When both do, the session hears of it, and no place stays taken."""
    slow, broken = MockProtocol([Pause(0.1), 10], peer="slow"), MockProtocol([EngineFailed("x")], peer="broken")
    async with raced(slow, broken, warm()) as (tokens, manager):
        assert tokens == [10]
        assert [remote.last_error for remote in manager.remotes] == ["", "x"]
    slow.script = [Pause(0.1), EngineFailed("y")]
    async with RemoteManager([slow, broken], probe_interval=60.0) as manager:
        await manager.ready()
        async with SessionManager(manager, limits=Limits(max_attempts=1), hedger=warm()).session() as session:
            with pytest.raises(NodeError):
                await anext(session.generate([1]))
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_nobody_else_is_asked_after_an_error() -> None:
    """What failed before it was late is no race: that the session tries again is another matter."""
    broken, other = MockProtocol([EngineFailed("x")], peer="broken"), MockProtocol([20], peer="other")
    with pytest.raises(EngineFailed):
        async with raced(broken, other, warm()):
            raise AssertionError
    assert not other.requests


class Lingering(MockProtocol):
    """Says nothing, and takes its time to end."""

    def __init__(self, peer: str) -> None:
        super().__init__([], peer=peer)
        self.asked, self.ending, self.over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def rpc_inference(self, request: Generate, emit: DeltaSink, check: Check | None = None) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await self.over.wait()


async def test_cancelled_again_while_both_end() -> None:
    """A second cancellation does not wait for the nodes; both have their places back."""
    nodes = [Lingering("a"), Lingering("b")]
    async with RemoteManager(nodes, probe_interval=60.0) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        async with SessionManager(manager, hedger=warm()).session() as session:
            task = asyncio.create_task(session.run([1], None, lambda delta: None))
            for node in nodes:
                await node.asked.wait()
            task.cancel()
            for node in nodes:
                await node.ending.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [remote.running for remote in manager.remotes] == [0, 0]
