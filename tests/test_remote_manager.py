"""The live table: probes, reports of requests, and what they may not do to each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from time import monotonic

import msgspec
import pytest

from subnet import MockProtocol, RemoteManager, SessionManager
from subnet.errors import (
    EngineFailed,
    InterTokenTimeout,
    NodeBusy,
    NodeError,
    NodeLeaving,
    NodeLost,
    NoNodeAvailable,
    Unauthorized,
)
from subnet.node_info import NodeInfo
from subnet.pool.node import Remote
from subnet.pool.policies.base import Policy, Want
from subnet.protocols.mock import Pause
from subnet.wire.tensors import token_ids


class Asked(MockProtocol):
    """A node that says how it is when the test wants it to: `question` waits for the next time it is asked."""

    def __init__(self, peer: str = "a") -> None:
        super().__init__(peer=peer)
        self._questions: asyncio.Queue[asyncio.Future[NodeInfo]] = asyncio.Queue()
        self.closed = False

    async def rpc_info(self) -> NodeInfo:
        answer: asyncio.Future[NodeInfo] = asyncio.get_running_loop().create_future()
        self._questions.put_nowait(answer)
        return await answer

    async def question(self) -> asyncio.Future[NodeInfo]:
        async with asyncio.timeout(5):
            return await self._questions.get()

    async def info(self, **changed: object) -> NodeInfo:
        info = await super().rpc_info()
        return msgspec.convert({**msgspec.structs.asdict(info), **changed}, NodeInfo)

    async def say(self, **changed: object) -> None:
        """Answer the next question."""
        (await self.question()).set_result(await self.info(**changed))

    async def aclose(self) -> None:
        self.closed = True


class Talking(Asked):
    """Something comes from it all the time, as long as it `talks`."""

    talks = True

    @property
    def heard(self) -> float:
        return monotonic() if self.talks else 0.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def watching(
    *nodes: MockProtocol, interval: float = 60.0, patience: float = 60.0, clock: Callable[[], float] | None = None
) -> AsyncIterator[RemoteManager]:
    manager = RemoteManager(nodes, probe_interval=interval, health_check_timeout=patience, clock=clock or Clock())
    async with manager:
        for node in nodes:
            if isinstance(node, Asked):
                await node.say()
        await settled(lambda: all(remote.info is not None for remote in manager.remotes))
        yield manager


async def settled(condition: Callable[[], object]) -> None:
    """Let other tasks run until they have brought it about."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def state(manager: RemoteManager, number: int = 0) -> tuple[str, str]:
    status = manager.status(manager.remotes[number])
    return status.state, status.why or ""


async def test_a_lost_node_is_away_until_it_answers() -> None:
    """A request that loses the connection has it asked at once, and meanwhile nothing is sent to it."""
    node = Asked()
    async with watching(node) as manager:
        manager.lease(None).failed(NodeLost("the connection broke"))
        assert state(manager) == ("unreachable", "the connection broke")
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)
        await node.say()
        await settled(lambda: state(manager)[0] == "healthy")
        assert manager.lease(None).remote.peer == "a"


async def test_an_answer_from_before_the_failure() -> None:
    """A probe that was under way when a request failed does not speak for the time after: the node is asked again."""
    node = Asked()
    async with watching(node, interval=0.01) as manager:
        under_way = await node.question()
        manager.lease(None).failed(InterTokenTimeout("silence"))
        under_way.set_result(await node.info())
        again = await node.question()
        assert state(manager) == ("unreachable", "silence")
        again.set_result(await node.info())
        await settled(lambda: state(manager)[0] == "healthy")


async def test_a_failure_from_an_earlier_life() -> None:
    """A client that reads slowly may report a loss long after the node came back: that says nothing of the node now."""
    node = Asked()
    async with watching(node) as manager:
        slow, quick = manager.lease(None), manager.lease(None)
        quick.failed(NodeLost("gone"))
        await node.say(node_id="another process")
        await settled(lambda: state(manager)[0] == "healthy")
        slow.failed(NodeLost("gone"))
        assert state(manager)[0] == "healthy"


async def test_a_silent_node() -> None:
    """One that takes the question and says nothing, as a stopped process does, is away after the timeout; it is back
    with its first answer.
    """
    node = Asked()
    async with watching(node, interval=0.01, patience=0.02) as manager:
        await settled(lambda: state(manager)[0] == "unreachable")
        assert state(manager)[1] == "health check of a timed out after 0.02 s"
        while state(manager)[0] == "unreachable":
            question = await node.question()
            if not question.cancelled():
                question.set_result(await node.info())
            await asyncio.sleep(0)


async def test_a_node_that_is_busy_talking() -> None:
    """While tokens come from it a node is here, though what it says of itself comes late, behind all of them."""
    node = Talking()
    async with watching(node, interval=0.01, patience=0.02) as manager:
        for _ in range(3):
            unanswered = await node.question()
            await settled(unanswered.cancelled)
        assert state(manager) == ("healthy", "")
        node.talks = False
        await settled(lambda: state(manager)[0] == "unreachable")


async def test_a_probe_that_breaks() -> None:
    """Whatever a protocol raises, the node goes on being watched."""
    node = Asked()
    async with watching(node, interval=0.01) as manager:
        (await node.question()).set_exception(RuntimeError("a bug"))
        await settled(lambda: state(manager)[0] == "unreachable")
        assert state(manager)[1] == "health check of a failed: RuntimeError"
        await node.say()
        await settled(lambda: state(manager)[0] == "healthy")


async def test_a_node_that_leaves() -> None:
    """It is no fault of the node: the breaker stays closed, and what it says then is that it drains."""
    node = Asked()
    async with watching(node) as manager:
        for lease in [manager.lease(None) for _ in range(5)]:
            lease.failed(NodeLeaving("the node is shutting down"))
        await node.say(draining=True)
        await settled(lambda: state(manager)[0] == "draining")
        assert manager.remotes[0].breaker.state(0) == "closed"
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)


async def test_a_node_that_is_full() -> None:
    """It is left alone for as long as it asks for, and is not to blame."""
    clock = Clock()
    async with watching(MockProtocol(peer="a"), clock=clock) as manager:
        manager.lease(None).failed(NodeBusy("full", retry_after=3.0))
        assert state(manager) == ("full", "the node rejected a request for lack of capacity; retry in 3.0 s")
        with pytest.raises(NodeBusy) as refused:
            manager.lease(None)
        assert refused.value.retry_after == 3.0
        clock.now += 3
        assert state(manager) == ("healthy", "")
        manager.lease(None)


async def test_a_node_filled_from_here() -> None:
    """What this gateway itself has sent there is known without asking."""
    async with watching(MockProtocol(peer="a", capacity=2)) as manager:
        leases = [manager.lease(None), manager.lease(None)]
        assert state(manager) == ("full", "all 2 slots are in use by this gateway")
        with pytest.raises(NodeBusy):
            manager.lease(None)
        leases[0].succeeded()
        assert state(manager)[0] == "healthy"


async def test_the_breaker_in_the_table() -> None:
    """It opens, says when it tries again, and closes with the first token of the request that tries it."""
    clock = Clock()
    async with watching(MockProtocol(peer="a"), clock=clock) as manager:
        for _ in range(3):
            manager.lease(None).failed(EngineFailed("out of memory"))
        why = "3 consecutive failures, last error: out of memory; retry in 1.0 s"
        assert state(manager) == ("breaker-open", why)
        with pytest.raises(NoNodeAvailable) as refused:
            manager.lease(None)
        assert refused.value.retry_after == 1.0
        clock.now += 1
        assert state(manager)[0] == "breaker-half-open"
        probe = manager.lease(None)
        assert state(manager)[1].endswith("a trial request is running")
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)
        probe.answered()
        assert state(manager)[0] == "healthy"
        manager.lease(None)


async def test_the_request_that_tries_a_node() -> None:
    """With its first token the node serves everyone again, however long the rest of the answer will be."""
    clock = Clock()
    async with watching(MockProtocol([10, Pause()], peer="a"), clock=clock) as manager:
        for _ in range(3):
            manager.lease(None).failed(EngineFailed("x"))
        clock.now += 1
        async with SessionManager(manager).session() as session, aclosing(session.generate([1])) as deltas:
            assert (await anext(deltas)).tokens == [10]
            assert state(manager)[0] == "healthy"


async def test_a_restarted_node_is_tried_at_once() -> None:
    """Of another process under the same address, one request finds out whether it is well."""
    node = Asked()
    async with watching(node) as manager:
        for lease in [manager.lease(None) for _ in range(5)]:
            lease.failed(NodeLost("gone"))
        assert manager.remotes[0].breaker.state(100.0) == "open"
        await node.say(node_id="another process")
        await settled(lambda: manager.remotes[0].fault is None)
        assert state(manager)[0] == "breaker-half-open"
        manager.lease(None).succeeded()
        assert state(manager)[0] == "healthy"


async def test_since_when() -> None:
    """A state is dated from when it began, and reading it does not make it younger."""
    clock, node = Clock(), Asked()
    async with watching(node, clock=clock) as manager:
        clock.now += 7
        assert manager.status(manager.remotes[0]).seconds == 7
        manager.lease(None).failed(NodeLost("gone"))
        clock.now += 5
        assert manager.status(manager.remotes[0]).seconds == 5
        assert manager.status(manager.remotes[0]).seconds == 5


async def test_removed_while_requests_run() -> None:
    """Its requests' reports are late, and harm neither it nor a node that was added under its name since."""
    old, new = Asked(), Asked()
    async with watching(old) as manager:
        leases = [manager.lease(None) for _ in range(3)]
        await manager.remove("a")
        assert old.closed
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)
        manager.add(new)
        await new.say()
        await settled(lambda: state(manager)[0] == "healthy")
        leases[0].failed(NodeLost("gone"))
        leases[1].succeeded()
        leases[2].abandoned()
        assert (state(manager)[0], manager.remotes[0].running) == ("healthy", 0)
        assert leases[0].remote.running == 0
        manager.on_request_failure("a", NodeLost("a report of nothing"))
        manager.on_request_success("nobody")
        assert state(manager)[0] == "healthy"


async def test_one_report_a_request() -> None:
    """Only the first counts."""
    async with watching(MockProtocol(peer="a")) as manager:
        lease = manager.lease(None)
        lease.succeeded()
        for _ in range(5):
            lease.failed(Unauthorized("no"))
            lease.abandoned()
        assert (state(manager)[0], manager.remotes[0].running) == ("healthy", 0)


@pytest.mark.parametrize("error", [None, NodeLost("gone"), Unauthorized("no"), EngineFailed("broke")])
async def test_reports_by_name(error: NodeError | None) -> None:
    """The promised names: a failure counts for the breaker, a success for its closing."""
    clock = Clock()
    async with watching(MockProtocol(peer="a"), clock=clock) as manager:
        for _ in range(3):
            assert manager.lease(None).remote.peer == "a"
            manager.on_request_failure("a", error)
            await settled(lambda: manager.remotes[0].fault is None)
        assert manager.remotes[0].breaker.state(clock.now) == "open"
        clock.now += 1
        manager.lease(None)
        manager.on_request_abandoned("a")
        manager.lease(None)
        manager.on_request_success("a")
        assert (state(manager)[0], manager.remotes[0].running) == ("healthy", 0)


async def test_own_requests_count_at_once() -> None:
    """A node's word is as old as the last probe: what was sent since is added, what it had then not counted twice."""
    node = Asked()
    async with watching(node, interval=0.01) as manager:
        remote = manager.remotes[0]
        await node.say(running=2, capacity=8)
        await settled(lambda: remote.load == 2 / 8)
        lease = manager.lease(None)
        assert remote.load == 3 / 8
        await node.say(running=5, capacity=8)
        await settled(lambda: remote.load == 5 / 8)
        lease.succeeded()
        assert remote.load == 4 / 8


async def test_what_the_policy_gets() -> None:
    """Only nodes that could take the request, those not tried yet if there are any, and what is known of it."""
    seen: list[tuple[list[str], Want]] = []

    class First(Policy):
        def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
            seen.append(([remote.peer for remote in candidates], want))
            return candidates[0]

    nodes = [MockProtocol(peer=peer) for peer in "abc"]
    async with RemoteManager([*nodes, MockProtocol(peer="x", model="other")], policy=First()) as manager:
        await settled(lambda: all(remote.info is not None for remote in manager.remotes))
        want = Want(token_ids([1, 2]), "key")
        manager.lease("mock", want=want).failed(NodeBusy("full"))
        manager.lease("mock", {"b"}, want)
        manager.lease("mock", {"b", "c"})
    assert [peers for peers, _ in seen] == [["a", "b", "c"], ["c"], ["b", "c"]]
    assert seen[1][1] is want
    assert seen[2][1].key is None
