"""The node table: health checks, reports of requests, and their effects on the state of a node."""

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
from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.protocols.mock import Pause
from subnet.tensors import token_ids


class ManualNode(MockProtocol):
    """A node whose health checks the test responds to: `health_check` waits for the next one."""

    def __init__(self, peer: str = "a", chat_template: str | None = None) -> None:
        super().__init__(peer=peer, chat_template=chat_template)
        self._health_checks: asyncio.Queue[asyncio.Future[NodeInfo]] = asyncio.Queue()
        self.closed = False

    async def rpc_info(self) -> NodeInfo:
        response: asyncio.Future[NodeInfo] = asyncio.get_running_loop().create_future()
        self._health_checks.put_nowait(response)
        return await response

    async def health_check(self) -> asyncio.Future[NodeInfo]:
        async with asyncio.timeout(5):
            return await self._health_checks.get()

    async def info(self, **changed: object) -> NodeInfo:
        info = await super().rpc_info()
        return msgspec.convert({**msgspec.structs.asdict(info), **changed}, NodeInfo)

    async def respond(self, **changed: object) -> None:
        """Respond to the next health check."""
        (await self.health_check()).set_result(await self.info(**changed))

    async def aclose(self) -> None:
        self.closed = True


class StreamingNode(ManualNode):
    """A node that sends data all the time while `streaming`."""

    streaming = True

    @property
    def last_received(self) -> float:
        return monotonic() if self.streaming else 0.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def managing(
    *nodes: MockProtocol, interval: float = 60.0, check_timeout: float = 60.0, clock: Callable[[], float] | None = None
) -> AsyncIterator[RemoteManager]:
    manager = RemoteManager(nodes, probe_interval=interval, health_check_timeout=check_timeout, clock=clock or Clock())
    async with manager:
        for node in nodes:
            if isinstance(node, ManualNode):
                await node.respond()
        await until(lambda: all(remote.info is not None for remote in manager.remotes))
        yield manager


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition` holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def state(manager: RemoteManager, number: int = 0) -> tuple[str, str]:
    status = manager.status(manager.remotes[number])
    return status.state, status.reason or ""


async def test_a_lost_node_is_unreachable_until_its_next_health_check() -> None:
    """A request that loses its connection causes a health check at once; until then the node gets no requests."""
    node = ManualNode()
    async with managing(node) as manager:
        manager.lease(None).failed(NodeLost("the connection broke"))
        assert state(manager) == ("unreachable", "the connection broke")
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)
        await node.respond()
        await until(lambda: state(manager)[0] == "healthy")
        assert manager.lease(None).remote.peer == "a"


async def test_a_health_check_from_before_a_failure_is_repeated() -> None:
    """A health check that was running when a request failed does not count, and another one follows."""
    node = ManualNode()
    async with managing(node, interval=0.01) as manager:
        running = await node.health_check()
        manager.lease(None).failed(InterTokenTimeout("silence"))
        running.set_result(await node.info())
        repeated = await node.health_check()
        assert state(manager) == ("unreachable", "silence")
        repeated.set_result(await node.info())
        await until(lambda: state(manager)[0] == "healthy")


async def test_a_failure_reported_after_a_restart_is_ignored() -> None:
    """A lost connection reported after the node has restarted does not make the node unreachable."""
    node = ManualNode()
    async with managing(node) as manager:
        late, early = manager.lease(None), manager.lease(None)
        early.failed(NodeLost("gone"))
        await node.respond(node_id="another process")
        await until(lambda: state(manager)[0] == "healthy")
        late.failed(NodeLost("gone"))
        assert state(manager)[0] == "healthy"


async def test_a_health_check_times_out() -> None:
    """A node that does not respond to a health check in time is unreachable until it responds to a later one."""
    node = ManualNode()
    async with managing(node, interval=0.01, check_timeout=0.02) as manager:
        await until(lambda: state(manager)[0] == "unreachable")
        assert state(manager)[1] == "health check of a timed out after 0.02 s"
        while state(manager)[0] == "unreachable":
            response = await node.health_check()
            if not response.cancelled():
                response.set_result(await node.info())
            await asyncio.sleep(0)


async def test_a_streaming_node_is_not_unreachable() -> None:
    """A node that sends tokens stays healthy even if its response to the health check is late."""
    node = StreamingNode()
    async with managing(node, interval=0.01, check_timeout=0.02) as manager:
        for _ in range(3):
            response = await node.health_check()
            await until(response.cancelled)
        assert state(manager) == ("healthy", "")
        node.streaming = False
        await until(lambda: state(manager)[0] == "unreachable")


async def test_a_bug_in_a_protocol_does_not_end_the_health_checks() -> None:
    """After an unexpected exception from a protocol the node is unreachable, and health checks continue."""
    node = ManualNode()
    async with managing(node, interval=0.01) as manager:
        (await node.health_check()).set_exception(RuntimeError("a bug"))
        await until(lambda: state(manager)[0] == "unreachable")
        assert state(manager)[1] == "health check of a failed: RuntimeError"
        await node.respond()
        await until(lambda: state(manager)[0] == "healthy")


async def test_a_node_that_shuts_down_is_draining() -> None:
    """Requests that a node ends as it shuts down do not open its breaker; after a health check it is draining."""
    node = ManualNode()
    async with managing(node) as manager:
        for lease in [manager.lease(None) for _ in range(5)]:
            lease.failed(NodeLeaving("the node is shutting down"))
        await node.respond(draining=True)
        await until(lambda: state(manager)[0] == "draining")
        assert manager.remotes[0].deployment(None).breaker.state(0) == "closed"
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)


async def test_a_full_node_gets_no_requests_until_retry_after() -> None:
    """A node that rejected a request for lack of capacity gets no requests for the error's retry_after."""
    clock = Clock()
    async with managing(MockProtocol(peer="a"), clock=clock) as manager:
        manager.lease(None).failed(NodeBusy("full", retry_after=3.0))
        assert state(manager) == ("full", "the node rejected a request for lack of capacity; retry in 3.0 s")
        with pytest.raises(NodeBusy) as refused:
            manager.lease(None)
        assert refused.value.retry_after == 3.0
        clock.now += 3
        assert state(manager) == ("healthy", "")
        manager.lease(None)


async def test_requests_of_this_process_fill_a_node() -> None:
    """A node is full as soon as this process has a request on each slot, without a health check."""
    async with managing(MockProtocol(peer="a", capacity=2)) as manager:
        leases = [manager.lease(None), manager.lease(None)]
        assert state(manager) == ("full", "all 2 slots are in use by this gateway")
        with pytest.raises(NodeBusy):
            manager.lease(None)
        leases[0].succeeded()
        assert state(manager)[0] == "healthy"


async def test_the_breaker_is_part_of_the_state() -> None:
    """The state shows the open breaker and its cooldown; the first token of the trial request closes it."""
    clock = Clock()
    async with managing(MockProtocol(peer="a"), clock=clock) as manager:
        for _ in range(3):
            manager.lease(None).failed(EngineFailed("out of memory"))
        reason = "3 consecutive failures, last error: out of memory; retry in 1.0 s"
        assert state(manager) == ("breaker-open", reason)
        with pytest.raises(NoNodeAvailable) as refused:
            manager.lease(None)
        assert refused.value.retry_after == 1.0
        clock.now += 1
        assert state(manager)[0] == "breaker-half-open"
        trial = manager.lease(None)
        assert state(manager)[1].endswith("a trial request is running")
        with pytest.raises(NodeBusy, match="trial request"):
            manager.lease(None)
        trial.first_token_received()
        assert state(manager)[0] == "healthy"
        manager.lease(None)


async def test_a_session_closes_the_breaker_with_its_first_token() -> None:
    """A trial request that runs in a session makes the node healthy with its first token, before its end."""
    clock = Clock()
    async with managing(MockProtocol([10, Pause()], peer="a"), clock=clock) as manager:
        for _ in range(3):
            manager.lease(None).failed(EngineFailed("x"))
        clock.now += 1
        async with SessionManager(manager).session() as session, aclosing(session.generate([1])) as deltas:
            assert (await anext(deltas)).tokens == [10]
            assert state(manager)[0] == "healthy"


async def test_a_restarted_node_gets_a_trial_request_at_once() -> None:
    """A new process at the address of a failed node gets a trial request without waiting for the cooldown."""
    node = ManualNode()
    async with managing(node) as manager:
        for lease in [manager.lease(None) for _ in range(5)]:
            lease.failed(NodeLost("gone"))
        assert manager.remotes[0].deployment(None).breaker.state(100.0) == "open"
        await node.respond(node_id="another process")
        await until(lambda: manager.remotes[0].unreachable_reason is None)
        assert state(manager)[0] == "breaker-half-open"
        manager.lease(None).succeeded()
        assert state(manager)[0] == "healthy"


async def test_the_age_of_a_state() -> None:
    """The age of a state counts from its start, and reading it does not reset it."""
    clock, node = Clock(), ManualNode()
    async with managing(node, clock=clock) as manager:
        clock.now += 7
        assert manager.status(manager.remotes[0]).seconds == 7
        manager.lease(None).failed(NodeLost("gone"))
        clock.now += 5
        assert manager.status(manager.remotes[0]).seconds == 5
        assert manager.status(manager.remotes[0]).seconds == 5


async def test_a_node_removed_while_requests_run() -> None:
    """Reports of a removed node's requests do not affect a node added later with the same address."""
    old, new = ManualNode(), ManualNode()
    async with managing(old) as manager:
        leases = [manager.lease(None) for _ in range(3)]
        await manager.remove("a")
        assert old.closed
        with pytest.raises(NoNodeAvailable):
            manager.lease(None)
        manager.add(new)
        await new.respond()
        await until(lambda: state(manager)[0] == "healthy")
        leases[0].failed(NodeLost("gone"))
        leases[1].succeeded()
        leases[2].abandoned()
        assert (state(manager)[0], manager.remotes[0].running) == ("healthy", 0)
        assert leases[0].remote.running == 0
        manager.on_request_failure("a", NodeLost("no request is running"))
        manager.on_request_success("unknown")
        assert state(manager)[0] == "healthy"


async def test_only_the_first_report_counts() -> None:
    """Reports of a request after the first one are ignored."""
    async with managing(MockProtocol(peer="a")) as manager:
        lease = manager.lease(None)
        lease.succeeded()
        for _ in range(5):
            lease.failed(Unauthorized("no"))
            lease.abandoned()
        assert (state(manager)[0], manager.remotes[0].running) == ("healthy", 0)


@pytest.mark.parametrize("error", [None, NodeLost("gone"), Unauthorized("no"), EngineFailed("broke")])
async def test_reports_by_peer(error: NodeError | None) -> None:
    """Failures reported with on_request_failure open the breaker, and a success with on_request_success closes it."""
    clock = Clock()
    async with managing(MockProtocol(peer="a"), clock=clock) as manager:
        for _ in range(3):
            assert manager.lease(None).remote.peer == "a"
            manager.on_request_failure("a", error)
            await until(lambda: manager.remotes[0].unreachable_reason is None)
        assert manager.remotes[0].deployment(None).breaker.state(clock.now) == "open"
        clock.now += 1
        manager.lease(None)
        manager.on_request_abandoned("a")
        manager.lease(None)
        manager.on_request_success("a")
        assert (state(manager)[0], manager.remotes[0].running) == ("healthy", 0)


async def test_load_adds_requests_since_the_last_health_check() -> None:
    """The load includes requests sent since the last health check, and counts earlier ones only once."""
    node = ManualNode()
    async with managing(node, interval=0.01) as manager:
        remote = manager.remotes[0]
        await node.respond(running=2, capacity=8)
        await until(lambda: remote.load == 2 / 8)
        lease = manager.lease(None)
        assert remote.load == 3 / 8
        await node.respond(running=5, capacity=8)
        await until(lambda: remote.load == 5 / 8)
        lease.succeeded()
        assert remote.load == 4 / 8


async def test_the_arguments_of_a_policy() -> None:
    """A policy gets the available nodes, without the excluded ones if others are left, and the routing hint."""
    calls: list[tuple[list[str], RoutingHint]] = []

    class First(Policy):
        def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
            calls.append(([remote.peer for remote in candidates], hint))
            return candidates[0]

    nodes = [MockProtocol(peer=peer) for peer in "abc"]
    async with RemoteManager([*nodes, MockProtocol(peer="x", model="other")], policy=First()) as manager:
        await until(lambda: all(remote.info is not None for remote in manager.remotes))
        hint = RoutingHint(token_ids([1, 2]), "key")
        manager.lease("mock", hint=hint).failed(NodeBusy("full"))
        manager.lease("mock", {"b"}, hint)
        manager.lease("mock", {"b", "c"})
    assert [peers for peers, _ in calls] == [["a", "b", "c"], ["c"], ["b", "c"]]
    assert calls[1][1] is hint
    assert calls[2][1].key is None


@pytest.mark.parametrize("lengths", [(100, 4000), (4000, 100)])
async def test_the_card_of_a_model_has_the_longest_context(lengths: tuple[int, int]) -> None:
    """A model is described by its first node, with the longest context of all, whatever the order of the nodes."""
    nodes = [MockProtocol(peer=str(index), context_length=length) for index, length in enumerate(lengths)]
    async with managing(*nodes) as manager:
        assert manager.models()["mock"].context_length == 4000
        own = [remote.info.card("mock") for remote in manager.remotes if remote.info is not None]
        assert [card.context_length for card in own if card is not None] == [*lengths]
