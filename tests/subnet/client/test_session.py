"""Sessions on scripted nodes: deltas, retries, failover and cleanup."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest

from subnet import Limits, MockProtocol, RemoteManager, Sampling, Session, SessionManager, TokenAuthorizer
from subnet.aio import Sink
from subnet.authorizers import AuthorizerBase
from subnet.errors import (
    EngineFailed,
    FirstTokenTimeout,
    InterTokenTimeout,
    InvalidRequest,
    NodeBusy,
    NodeError,
    NodeLost,
    NodeTimeout,
    NoNodeAvailable,
    SessionClosed,
    SubnetError,
    Unauthorized,
)
from subnet.generation import Delta, Grammar, TokenLogprobs
from subnet.node_info import Capabilities, NodeInfo
from subnet.protocols.mock import Pause, Step
from subnet.tensors import unpack
from subnet.wire.messages import Generate

QUICK = Limits(first_token_timeout=0.2, inter_token_timeout=0.2, backoff=0.001, retry_timeout=5.0, queue_timeout=2.0)
HANG = Pause()


@asynccontextmanager
async def subnet(*nodes: MockProtocol, authorizer: TokenAuthorizer | None = None) -> AsyncIterator[RemoteManager]:
    async with RemoteManager(nodes, authorizer=authorizer, probe_interval=60.0) as manager:
        if nodes:
            await manager.ready()
            # Every node has passed a health check before a test starts, so that their order is known.
            while any(remote.info is None for remote in manager.remotes):
                await asyncio.sleep(0)
        yield manager


async def generated(manager: RemoteManager, sampling: Sampling | None = None, choices: int = 1) -> list[Delta]:
    async with SessionManager(manager, limits=QUICK).session() as session:
        return [delta async for delta in session.generate([1, 2, 3], sampling, choices=choices)]


def tokens(deltas: list[Delta], choice: int = 0) -> list[int]:
    return [token for delta in deltas if delta.choice == choice for token in delta.tokens]


async def test_run_protocol_task() -> None:
    """run_protocol_task yields int32 arrays of new token ids, with a manager and a session as the only setup."""
    async with subnet(MockProtocol([10, [11, 12]])) as remote_manager:
        session_manager = SessionManager(remote_manager)
        async with session_manager.session() as session:
            arrays = [tensor async for tensor in session.run_protocol_task("hi", np.array([1, 2]))]
    assert [array.tolist() for array in arrays] == [[10], [11, 12]]
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}


async def test_a_session_without_a_session_manager() -> None:
    """Session(remote_manager, authorizer) works without a SessionManager, and close() may be called twice."""
    async with subnet(MockProtocol([10])) as remote_manager:
        session = Session(remote_manager, None)
        assert [t.tolist() async for t in session.run_protocol_task("", [1])] == [[10]]
        await session.close()
        await session.close()
        with pytest.raises(SessionClosed):
            await anext(session.generate([1]))


async def test_the_prompt_is_copied() -> None:
    """A retry sends the original prompt, even if the caller has modified its array."""
    first, second = MockProtocol([10, EngineFailed("x")], peer="a"), MockProtocol([10, 11], peer="b")
    prompt = np.array([1, 2, 3], np.int32)
    async with subnet(first, second) as manager, SessionManager(manager, limits=QUICK).session() as session:
        async for _ in session.run_protocol_task("", prompt):
            prompt[:] = 99
    assert [unpack(node.requests[0].prompt).tolist() for node in (first, second)] == [[1, 2, 3], [1, 2, 3]]


async def test_round_robin() -> None:
    """Requests are distributed to the nodes in turn."""
    nodes = [MockProtocol([10], peer=peer) for peer in "abc"]
    async with subnet(*nodes) as manager:
        for _ in range(6):
            await generated(manager)
    assert [len(node.requests) for node in nodes] == [2, 2, 2]


@pytest.mark.parametrize(
    "fault", [NodeLost("gone"), NodeBusy("full"), EngineFailed("broke"), HANG], ids=lambda fault: type(fault).__name__
)
async def test_a_failure_before_the_first_token(fault: Exception | Pause) -> None:
    """A request that fails before its first token is served by another node, unnoticed by the caller."""
    bad, good = MockProtocol([fault], peer="bad"), MockProtocol([10, 11], peer="good")
    async with subnet(bad, good) as manager:
        for _ in range(2):
            assert tokens(await generated(manager)) == [10, 11]
    assert bad.requests
    assert (len(good.requests), bad.open) == (2, 0)


async def test_a_failure_in_the_middle() -> None:
    """Another node continues after the delivered tokens: none is lost, repeated or invented."""
    bad = MockProtocol([10, 11, NodeLost("gone")], peer="bad")
    good = MockProtocol([10, 11, 12, 13], peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager)
    assert tokens(deltas) == [10, 11, 12, 13]
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert unpack(good.requests[0].starts[0].delivered).tolist() == [10, 11]
    assert good.requests[0].sampling.seed == bad.requests[0].sampling.seed is not None


async def test_only_lost_choices_are_resumed() -> None:
    """A choice that was finished before the failure is not requested again."""
    bad = MockProtocol([Delta(0, [10], finish_reason="stop"), Delta(1, [20]), NodeLost("gone")], peer="bad")
    good = MockProtocol([Delta(1, [20]), Delta(1, [21])], peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager, choices=2)
    assert (tokens(deltas, 0), tokens(deltas, 1)) == ([10], [20, 21])
    assert [start.choice for start in good.requests[0].starts] == [1]


async def test_max_tokens_across_a_failover() -> None:
    """The tokens of both nodes add up to max_tokens."""
    bad, good = MockProtocol([10, 11, NodeLost("gone")], peer="bad"), MockProtocol(list(range(10, 99)), peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager, Sampling(max_tokens=5))
    assert tokens(deltas) == [10, 11, 12, 13, 14]
    assert deltas[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("script", "limits", "error", "message"),
    [
        (
            [HANG],
            Limits(first_token_timeout=0.1, inter_token_timeout=60.0, max_attempts=1),
            FirstTokenTimeout,
            r"sent no first token within 0\.1 s \(first_token_timeout\)",
        ),
        (
            [10, HANG],
            Limits(first_token_timeout=60.0, inter_token_timeout=0.1, max_attempts=1),
            InterTokenTimeout,
            r"sent no token for 0\.1 s \(inter_token_timeout\)",
        ),
        (
            [10, Pause(0.15)] * 9,
            Limits(attempt_timeout=0.2, max_attempts=1),
            NodeTimeout,
            r"did not finish within 0\.2 s \(attempt_timeout\)",
        ),
    ],
)
async def test_timeouts(script: list[Step], limits: Limits, error: type[SubnetError], message: str) -> None:
    """A node that exceeds a timeout is cancelled; without another node, the error names the timeout."""
    node = MockProtocol(script)
    async with (
        asyncio.timeout(20),
        subnet(node) as manager,
        SessionManager(manager, limits=limits).session() as session,
    ):
        with pytest.raises(error, match=message):
            async for _ in session.generate([1]):
                pass
    assert node.open == 0


class Truncating(MockProtocol):
    """Node that ends the stream after one token, without a finish reason."""

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        emit(Delta(0, [10]))


async def test_a_stream_without_a_finish_reason_is_a_failure() -> None:
    """A stream without a finish reason is a failure of the node: another node continues, or NodeError is raised."""
    async with subnet(Truncating(peer="truncating"), other := MockProtocol([10, 11, 12])) as manager:
        assert tokens(await generated(manager)) == [10, 11, 12]
        assert len(other.requests) == 1
    async with subnet(Truncating()) as manager:
        async with SessionManager(manager, limits=Limits(max_attempts=1)).session() as session:
            with pytest.raises(NodeError, match="before the answer was complete"):
                await session.run([1], None, lambda delta: None)


async def test_a_slow_consumer_does_not_time_out() -> None:
    """The time that the caller takes to process a token does not count towards inter_token_timeout."""
    async with subnet(MockProtocol([10, 11])) as manager:
        limits = Limits(inter_token_timeout=0.01, max_attempts=1)
        async with SessionManager(manager, limits=limits).session() as session:
            received = []
            async for delta in session.generate([1]):
                await asyncio.sleep(0.03)
                received += delta.tokens
    assert received == [10, 11]


async def test_attempts_are_bounded() -> None:
    """A request that fails on every node makes max_attempts attempts and raises the last error."""
    nodes = [MockProtocol([NodeTimeout(peer)], peer=peer) for peer in "abcdefgh"]
    async with subnet(*nodes) as manager:
        with pytest.raises(NodeTimeout):
            await generated(manager)
    assert sum(len(node.requests) for node in nodes) == QUICK.max_attempts


async def test_no_node() -> None:
    """A request for a model that no node serves raises NoNodeAvailable at once."""
    async with subnet() as manager:
        with pytest.raises(NoNodeAvailable):
            await generated(manager)
    async with subnet(MockProtocol(model="m")) as manager, SessionManager(manager).session("other") as session:
        with pytest.raises(NoNodeAvailable, match="other"):
            await anext(session.generate([1]))


async def test_leaving_early_cancels() -> None:
    """Closing the iterator, cancelling the task or closing the session cancels the work on the node."""
    node = MockProtocol([10, HANG])
    async with subnet(node) as manager:
        session_manager = SessionManager(manager)
        async with session_manager.session() as session, aclosing(session.generate([1])) as deltas:
            await anext(deltas)
        assert (node.open, node.cancelled) == (0, 1)

        async def generate() -> None:
            async with session_manager.session() as session:
                async for _ in session.generate([1]):
                    started.set()

        started = asyncio.Event()
        task = asyncio.create_task(generate())
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (node.open, node.cancelled) == (0, 2)

        async with session_manager.session() as session:
            await anext(session.generate([1]))
        assert (node.open, node.cancelled) == (0, 3)
        assert manager.remotes[0].running == 0


async def test_closing_from_another_task() -> None:
    """Closing a session raises SessionClosed in a task that waits for its next token."""
    async with subnet(MockProtocol([10, HANG])) as manager:
        session = Session(manager)
        stream = session.generate([1])
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await session.close()
        with pytest.raises(SessionClosed):
            await waiting


async def test_nodes_must_authenticate() -> None:
    """A node with the shared secret is accepted; a node with another secret, or none, raises Unauthorized."""
    ours, theirs = TokenAuthorizer("ours"), TokenAuthorizer("theirs")
    async with subnet(MockProtocol([10], authorizer=ours), authorizer=ours) as manager:
        assert tokens(await generated(manager)) == [10]
    for stranger in (theirs, None):
        async with subnet(MockProtocol([10], authorizer=stranger), authorizer=ours) as manager:
            with pytest.raises(Unauthorized):
                await generated(manager)


async def test_excess_tokens_are_dropped() -> None:
    """Tokens beyond max_tokens, or of an unknown choice, are not delivered."""
    for script in ([Delta(0, [1, 2, 3]), Delta(5, [1])], [Delta(0, [1]), Delta(0, [], finish_reason="stop")]):
        async with subnet(MockProtocol(script)) as manager:
            deltas = await generated(manager, Sampling(max_tokens=2))
        assert len(tokens(deltas)) <= 2


async def test_closing_between_two_tokens() -> None:
    """close() raises SessionClosed in a consumer that was processing a token, so its answer does not look complete."""
    async with subnet(MockProtocol([10, 11, 12])) as manager:
        session = Session(manager)
        tensors = session.run_protocol_task("", [1])
        assert (await anext(tensors)).tolist() == [10]
        await session.close()
        with pytest.raises(SessionClosed):
            await anext(tensors)


@pytest.mark.parametrize(
    ("sampling", "text", "choices"),
    [
        (Sampling(max_tokens=-1), None, 1),
        (Sampling(max_tokens=0), None, 1),
        (Sampling(seed=2**64), None, 1),
        (Sampling(logprobs=300), None, 1),
        (Sampling(), "\ud800", 1),
        (Sampling(), None, 0),
        (Sampling(), "x" * 2**25, 1),
        (Sampling(max_tokens=5.5), None, 1),  # type: ignore[arg-type]
        (Sampling(stop_tokens=(True,)), None, 1),
        (Sampling(logit_bias={2**70: 1.0}), None, 1),
        (Sampling(grammar=Grammar("prose", "x")), None, 1),  # type: ignore[arg-type]
    ],
)
async def test_invalid_requests_are_rejected(sampling: Sampling, text: str | None, choices: int) -> None:
    """Invalid parameters raise InvalidRequest before any node gets the request."""
    node = MockProtocol([10])
    async with subnet(node) as manager, SessionManager(manager).session() as session:
        with pytest.raises(InvalidRequest):
            await anext(session.generate([1], sampling, text=text, choices=choices))
    assert not node.requests


async def test_keep_alives_extend_the_timeout() -> None:
    """Keep-alives extend first_token_timeout and are not delivered to the caller."""
    steps: list[Delta | Pause | int] = [Pause(0.1), Delta(0, []), Pause(0.1), Delta(0, []), Pause(0.1), 10]
    async with subnet(MockProtocol(steps)) as manager:
        limits = Limits(first_token_timeout=0.2, prefill_rate=1e9, max_attempts=1)
        async with SessionManager(manager, limits=limits).session() as session:
            deltas = [delta async for delta in session.generate([1])]
    assert [(delta.tokens, delta.finish_reason) for delta in deltas] == [([10], None), ([], "stop")]


async def test_keep_alive_timeout_does_not_shorten_other_timeouts() -> None:
    """A keep_alive_timeout below inter_token_timeout does not shorten the wait for a token."""
    steps: list[Delta | Pause | int] = [10, Pause(0.3), 11]
    async with subnet(MockProtocol(steps)) as manager:
        limits = Limits(
            first_token_timeout=0.1, prefill_rate=1e9, inter_token_timeout=60, keep_alive_timeout=0.1, max_attempts=1
        )
        async with SessionManager(manager, limits=limits).session() as session:
            assert [t async for delta in session.generate([1]) for t in delta.tokens] == [10, 11]


async def test_closing_the_manager_ends_running_requests() -> None:
    """Closing the RemoteManager raises an error in sessions that wait for a node."""
    async with RemoteManager([MockProtocol([HANG])]) as manager:
        await manager.ready()
        session = Session(manager, limits=Limits(max_attempts=1))
        waiting = asyncio.ensure_future(anext(session.generate([1])))
        while not manager.remotes[0].running:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(SubnetError):
        await waiting


async def test_more_choices_than_a_node_has_slots() -> None:
    """Choices beyond a node's capacity are requested in later batches, and all complete."""
    node = MockProtocol([10, 11], capacity=2)
    async with subnet(node) as manager:
        deltas = await generated(manager, choices=5)
    assert [len(request.starts) for request in node.requests] == [2, 2, 1]
    finished = [delta.choice for delta in deltas if delta.finish_reason is not None]
    assert sorted(finished) == [0, 1, 2, 3, 4]
    assert sum(len(delta.tokens) for delta in deltas) == 10


async def test_fewer_choices_for_a_node_that_is_nearly_full() -> None:
    """After NodeBusy the number of requested choices is halved, so that they need not wait for an empty node."""

    def script(request: Generate) -> Sequence[Step]:
        return [NodeBusy("3 of 4 slots are in use", retry_after=0.001)] if len(request.starts) > 1 else [10]

    node = MockProtocol(script, capacity=4)
    async with subnet(node) as manager:
        deltas = await generated(manager, choices=4)
    assert [len(request.starts) for request in node.requests] == [4, 2, 1, 1, 1, 1]
    assert sorted(delta.choice for delta in deltas if delta.tokens) == [0, 1, 2, 3]


async def test_a_scripted_node_cuts_logprobs_with_their_tokens() -> None:
    """MockProtocol cuts the logprobs of a delta together with tokens that exceed max_tokens or were delivered."""
    entries = [TokenLogprobs(-float(token)) for token in (10, 11, 12)]
    delta = Delta(0, [10, 11, 12], entries)
    bad = MockProtocol([Delta(0, [10], entries[:1]), NodeLost("gone")], peer="bad")
    good = MockProtocol([delta], peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager, Sampling(max_tokens=2, logprobs=0))
    assert [entry.logprob for delta in deltas for entry in delta.logprobs or ()] == [-10.0, -11.0]


async def test_closing_while_a_failed_attempt_is_ending() -> None:
    """close() while a timed-out attempt is still ending raises SessionClosed, and no other node gets the request."""
    cancelled = asyncio.Event()

    class Slow(MockProtocol):
        async def rpc_inference(
            self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
        ) -> None:
            try:
                await super().rpc_inference(request, emit, authorizer)
            finally:
                cancelled.set()
                await asyncio.sleep(0.05)

    other = MockProtocol([10], peer="b")
    async with subnet(Slow([10, HANG], peer="a"), other) as manager:
        session = Session(manager, limits=QUICK)
        task = asyncio.create_task(session.run([1], None, lambda delta: None))
        await cancelled.wait()
        await session.close()
        with pytest.raises(SessionClosed):
            await task
    assert not other.requests


async def test_invalid_token_ids_cannot_be_resumed() -> None:
    """Resuming an answer with invalid token ids raises ValueError and leaves no active lease."""
    nodes = [MockProtocol([Delta(0, [-1]), NodeLost("gone")], peer="a")]
    nodes.append(MockProtocol([10], peer="b", capabilities=Capabilities(resume="continue")))
    async with subnet(*nodes) as manager:
        with pytest.raises(ValueError, match="token ids"):
            await Session(manager, limits=QUICK).run([1], None, lambda delta: None)
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_another_model_does_not_continue() -> None:
    """A session without a model continues an answer only on the model that started it."""
    lost = MockProtocol([10, 11, NodeLost("gone")], peer="a", model="a")
    async with subnet(lost, MockProtocol([20, 21, 22], peer="b", model="b")) as manager:
        for _ in range(4):
            limits = Limits(backoff=0.001, max_attempts=2, queue_timeout=0.05)
            async with SessionManager(manager, limits=limits).session() as session:
                tokens: list[int] = []
                try:
                    async for delta in session.generate([1]):
                        tokens += delta.tokens
                except (NodeError, NoNodeAvailable):
                    assert tokens == [10, 11]
                else:
                    assert tokens == [20, 21, 22]
    assert lost.requests


async def test_the_same_model_continues() -> None:
    """A session without a model is continued by a node with the model that started the answer."""
    lost = MockProtocol([10, 11, NodeLost("gone")], peer="a", model="m")
    others = MockProtocol([20], peer="b", model="other"), MockProtocol([10, 11, 12], peer="c", model="m")
    async with subnet(lost, *others) as manager:
        for _ in range(6):
            async with SessionManager(manager, limits=QUICK).session() as session:
                tokens = [token async for delta in session.generate([1]) for token in delta.tokens]
            assert tokens in ([10, 11, 12], [20])
    assert lost.requests


async def test_a_prompt_goes_to_a_node_with_room_for_it() -> None:
    """A request goes only to nodes whose context has room for all of it, as long as there are any."""
    small, large = MockProtocol([7], peer="small", context_length=16), MockProtocol([7], peer="large")
    async with subnet(small, large) as remotes:
        for prompt, max_tokens in (([*range(1, 41)], None), ([1, 2], 4), ([1, 2], 99)):
            for _ in range(2):
                async with SessionManager(remotes, limits=QUICK).session("mock") as session:
                    deltas = session.generate(prompt, Sampling(max_tokens=max_tokens))
                    assert [delta async for delta in deltas]
    assert [request.sampling.max_tokens for request in small.requests] == [4]
    assert [request.sampling.max_tokens for request in large.requests] == [None, None, 4, 99, 99]


class NodeThatIsGone(MockProtocol):
    """A node that fails all health checks after its first request."""

    async def rpc_info(self) -> NodeInfo:
        if self.requests:
            raise NodeLost("gone")
        return await super().rpc_info()


async def test_an_answer_does_not_move_to_a_node_without_room() -> None:
    """An answer that has outgrown the context of the only other node fails with the error of its own node."""
    large = NodeThatIsGone([*range(20), NodeLost("gone")], peer="large")
    small = MockProtocol([*range(20), 5], peer="small", context_length=16)
    limits = Limits(backoff=0.001, max_attempts=2, queue_timeout=0.05)
    async with subnet(large, small) as remotes:
        async with SessionManager(remotes, limits=limits).session("mock") as session:
            with pytest.raises(NodeLost):
                async for _ in session.generate(range(1, 11)):
                    pass
    assert small.requests == []
