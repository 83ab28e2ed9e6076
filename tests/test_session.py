"""Sessions over scripted nodes: what is yielded, what is retried, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest

from subnet import Limits, MockProtocol, RemoteManager, Sampling, Session, SessionManager, TokenAuthorizer
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
from subnet.generation import Delta, DeltaSink, Grammar, TokenLogprobs
from subnet.node_info import Capabilities
from subnet.protocols.base import Check
from subnet.protocols.mock import Pause, Step
from subnet.wire.messages import Generate
from subnet.wire.tensors import unpack

QUICK = Limits(first_token_timeout=0.2, inter_token_timeout=0.2, backoff=0.001, retry_timeout=5.0, queue_timeout=2.0)
HANG = Pause()


@asynccontextmanager
async def subnet(*nodes: MockProtocol, authorizer: TokenAuthorizer | None = None) -> AsyncIterator[RemoteManager]:
    async with RemoteManager(nodes, authorizer=authorizer, probe_interval=60.0) as manager:
        if nodes:
            await manager.ready()
            # Every node has been asked once before a test begins, so that their order is known.
            while any(remote.info is None for remote in manager.remotes):
                await asyncio.sleep(0)
        yield manager


async def generated(manager: RemoteManager, sampling: Sampling | None = None, choices: int = 1) -> list[Delta]:
    async with SessionManager(manager, limits=QUICK).session() as session:
        return [delta async for delta in session.generate([1, 2, 3], sampling, choices=choices)]


def tokens(deltas: list[Delta], choice: int = 0) -> list[int]:
    return [token for delta in deltas if delta.choice == choice for token in delta.tokens]


async def test_the_promised_door() -> None:
    """run_protocol_task yields int32 arrays of new token ids, and nothing else is needed to use it."""
    async with subnet(MockProtocol([10, [11, 12]])) as remote_manager:
        session_manager = SessionManager(remote_manager)
        async with session_manager.session() as session:
            arrays = [tensor async for tensor in session.run_protocol_task("hi", np.array([1, 2]))]
    assert [array.tolist() for array in arrays] == [[10], [11, 12]]
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}


async def test_a_session_on_its_own() -> None:
    """Session(remote_manager, authorizer) works without a manager, and close() may come twice."""
    async with subnet(MockProtocol([10])) as remote_manager:
        session = Session(remote_manager, None)
        assert [t.tolist() async for t in session.run_protocol_task("", [1])] == [[10]]
        await session.close()
        await session.close()
        with pytest.raises(SessionClosed):
            await anext(session.generate([1]))


async def test_the_prompt_is_never_written_to() -> None:
    """A retry sends the prompt that was given, whatever was streamed and whatever the caller did to its array."""
    first, second = MockProtocol([10, EngineFailed("x")], peer="a"), MockProtocol([10, 11], peer="b")
    mine = np.array([1, 2, 3], np.int32)
    async with subnet(first, second) as manager, SessionManager(manager, limits=QUICK).session() as session:
        async for _ in session.run_protocol_task("", mine):
            mine[:] = 99
    assert [unpack(node.requests[0].prompt).tolist() for node in (first, second)] == [[1, 2, 3], [1, 2, 3]]


async def test_round_robin() -> None:
    """Requests go to the nodes in turn."""
    nodes = [MockProtocol([10], peer=peer) for peer in "abc"]
    async with subnet(*nodes) as manager:
        for _ in range(6):
            await generated(manager)
    assert [len(node.requests) for node in nodes] == [2, 2, 2]


@pytest.mark.parametrize(
    "fault", [NodeLost("gone"), NodeBusy("full"), EngineFailed("broke"), HANG], ids=lambda fault: type(fault).__name__
)
async def test_a_failure_before_the_first_token(fault: Exception | Pause) -> None:
    """The request goes to another node and the caller does not notice."""
    bad, good = MockProtocol([fault], peer="bad"), MockProtocol([10, 11], peer="good")
    async with subnet(bad, good) as manager:
        for _ in range(2):
            assert tokens(await generated(manager)) == [10, 11]
    assert bad.requests
    assert (len(good.requests), bad.open) == (2, 0)


async def test_a_failure_in_the_middle() -> None:
    """Another node goes on after the tokens delivered: none lost, doubled or invented."""
    bad = MockProtocol([10, 11, NodeLost("gone")], peer="bad")
    good = MockProtocol([10, 11, 12, 13], peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager)
    assert tokens(deltas) == [10, 11, 12, 13]
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert unpack(good.requests[0].starts[0].delivered).tolist() == [10, 11]
    assert good.requests[0].sampling.seed == bad.requests[0].sampling.seed is not None


async def test_only_lost_choices_are_resumed() -> None:
    """A choice that had finished is not asked for again."""
    bad = MockProtocol([Delta(0, [10], finish_reason="stop"), Delta(1, [20]), NodeLost("gone")], peer="bad")
    good = MockProtocol([Delta(1, [20]), Delta(1, [21])], peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager, choices=2)
    assert (tokens(deltas, 0), tokens(deltas, 1)) == ([10], [20, 21])
    assert [start.choice for start in good.requests[0].starts] == [1]


async def test_max_tokens_across_a_switch() -> None:
    """The tokens of both nodes together make the number asked for."""
    bad, good = MockProtocol([10, 11, NodeLost("gone")], peer="bad"), MockProtocol(list(range(10, 99)), peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager, Sampling(max_tokens=5))
    assert tokens(deltas) == [10, 11, 12, 13, 14]
    assert deltas[-1].finish_reason == "length"


async def test_the_clients_own_mistake() -> None:
    """It is tried once, and not held against the node."""
    node = MockProtocol([InvalidRequest("no")], peer="a")
    async with subnet(node, MockProtocol([10], peer="b")) as manager:
        for _ in range(5):
            with pytest.raises(InvalidRequest):
                await generated(manager)
            await generated(manager)
        assert manager.remotes[0].breaker.state(0) == "closed"
    assert len(node.requests) == 5


@pytest.mark.parametrize(
    ("script", "limits", "error", "why"),
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
async def test_silence(script: list[Step], limits: Limits, error: type[SubnetError], why: str) -> None:
    """A node that is silent, or slow, is given up, and when there is no other the error says what happened."""
    node = MockProtocol(script)
    async with (
        asyncio.timeout(20),
        subnet(node) as manager,
        SessionManager(manager, limits=limits).session() as session,
    ):
        with pytest.raises(error, match=why):
            async for _ in session.generate([1]):
                pass
    assert node.open == 0


class Brief(MockProtocol):
    """Has nothing more to say after one token, and does not say that it has ended."""

    async def rpc_inference(self, request: Generate, emit: DeltaSink, check: Check | None = None) -> None:
        emit(Delta(0, [10]))


async def test_a_node_that_ends_too_early() -> None:
    """That is its failure: another goes on; without one the error says so."""
    async with subnet(Brief(peer="brief"), other := MockProtocol([10, 11, 12])) as manager:
        assert tokens(await generated(manager)) == [10, 11, 12]
        assert len(other.requests) == 1
    async with subnet(Brief()) as manager:
        async with SessionManager(manager, limits=Limits(max_attempts=1)).session() as session:
            with pytest.raises(NodeError, match="before the answer was complete"):
                await session.run([1], None, lambda delta: None)


async def test_a_slow_consumer_is_no_stall() -> None:
    """Only the wait for the node counts, not what the caller does with a token."""
    async with subnet(MockProtocol([10, 11])) as manager:
        limits = Limits(inter_token_timeout=0.01, max_attempts=1)
        async with SessionManager(manager, limits=limits).session() as session:
            seen = []
            async for delta in session.generate([1]):
                await asyncio.sleep(0.03)
                seen += delta.tokens
    assert seen == [10, 11]


async def test_attempts_are_bounded() -> None:
    """After the last attempt the last error is raised."""
    nodes = [MockProtocol([EngineFailed(peer)], peer=peer) for peer in "abcdefgh"]
    async with subnet(*nodes) as manager:
        with pytest.raises(EngineFailed):
            await generated(manager)
    assert sum(len(node.requests) for node in nodes) == QUICK.max_attempts


async def test_no_node() -> None:
    """Without a node that serves the model, nothing is waited for."""
    async with subnet() as manager:
        with pytest.raises(NoNodeAvailable):
            await generated(manager)
    async with subnet(MockProtocol(model="m")) as manager, SessionManager(manager).session("other") as session:
        with pytest.raises(NoNodeAvailable, match="other"):
            await anext(session.generate([1]))


async def test_leaving_early_cancels() -> None:
    """Closing the iterator, cancelling the task or closing the session ends the work on the node."""
    node = MockProtocol([10, HANG])
    async with subnet(node) as manager:
        session_manager = SessionManager(manager)
        async with session_manager.session() as session, aclosing(session.generate([1])) as deltas:
            await anext(deltas)
        assert (node.open, node.cancelled) == (0, 1)

        async def ask() -> None:
            async with session_manager.session() as session:
                async for _ in session.generate([1]):
                    started.set()

        started = asyncio.Event()
        task = asyncio.create_task(ask())
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (node.open, node.cancelled) == (0, 2)

        async with session_manager.session() as session:
            await anext(session.generate([1]))
        assert (node.open, node.cancelled) == (0, 3)
        assert manager.remotes[0].running == 0


async def test_closing_from_another_task() -> None:
    """Whoever waits for a token of a session that is closed hears of it."""
    async with subnet(MockProtocol([10, HANG])) as manager:
        session = Session(manager)
        stream = session.generate([1])
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await session.close()
        with pytest.raises(SessionClosed):
            await waiting


async def test_nodes_that_prove_who_they_are() -> None:
    """With a shared secret all is well; a node with another one, or with none, is not believed."""
    ours, theirs = TokenAuthorizer("ours"), TokenAuthorizer("theirs")
    async with subnet(MockProtocol([10], authorizer=ours), authorizer=ours) as manager:
        assert tokens(await generated(manager)) == [10]
    for stranger in (theirs, None):
        async with subnet(MockProtocol([10], authorizer=stranger), authorizer=ours) as manager:
            with pytest.raises(Unauthorized):
                await generated(manager)


async def test_a_node_that_says_too_much() -> None:
    """Tokens beyond max_tokens, or for no choice of ours, are not passed on."""
    for script in ([Delta(0, [1, 2, 3]), Delta(5, [1])], [Delta(0, [1]), Delta(0, [], finish_reason="stop")]):
        async with subnet(MockProtocol(script)) as manager:
            deltas = await generated(manager, Sampling(max_tokens=2))
        assert len(tokens(deltas)) <= 2


async def test_closing_between_two_tokens() -> None:
    """An answer cut by close() does not look finished, even to a consumer that was busy at that moment."""
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
async def test_what_no_node_could_do(sampling: Sampling, text: str | None, choices: int) -> None:
    """The caller's mistake is told to the caller, before any node is asked."""
    node = MockProtocol([10])
    async with subnet(node) as manager, SessionManager(manager).session() as session:
        with pytest.raises(InvalidRequest):
            await anext(session.generate([1], sampling, text=text, choices=choices))
    assert not node.requests


async def test_signs_of_life() -> None:
    """A node that says it is busy is waited for; what it says is not passed on."""
    alive: list[Delta | Pause | int] = [Pause(0.1), Delta(0, []), Pause(0.1), Delta(0, []), Pause(0.1), 10]
    async with subnet(MockProtocol(alive)) as manager:
        limits = Limits(first_token_timeout=0.2, prefill_rate=1e9, max_attempts=1)
        async with SessionManager(manager, limits=limits).session() as session:
            deltas = [delta async for delta in session.generate([1])]
    assert [(delta.tokens, delta.finish_reason) for delta in deltas] == [([10], None), ([], "stop")]


async def test_silence_between_tokens_may_be_longer_than_signs_of_life() -> None:
    """These are more than a token, not less: what is waited for without them is waited for in any case."""
    steps: list[Delta | Pause | int] = [10, Pause(0.3), 11]
    async with subnet(MockProtocol(steps)) as manager:
        limits = Limits(
            first_token_timeout=0.1, prefill_rate=1e9, inter_token_timeout=60, keep_alive_timeout=0.1, max_attempts=1
        )
        async with SessionManager(manager, limits=limits).session() as session:
            assert [t async for delta in session.generate([1]) for t in delta.tokens] == [10, 11]


async def test_leaving_the_manager_ends_what_waits() -> None:
    """Nobody waits for a node of a manager that is gone."""
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
    """They are asked for as many at a time as there are slots, of one node or of several, and all come."""
    node = MockProtocol([10, 11], capacity=2)
    async with subnet(node) as manager:
        deltas = await generated(manager, choices=5)
    assert [len(request.starts) for request in node.requests] == [2, 2, 1]
    finished = [delta.choice for delta in deltas if delta.finish_reason is not None]
    assert sorted(finished) == [0, 1, 2, 3, 4]
    assert sum(len(delta.tokens) for delta in deltas) == 10


async def test_fewer_choices_for_a_node_that_is_rather_full() -> None:
    """A node that has no room for all of them is asked for fewer, so that they need not wait until it is empty."""

    def script(request: Generate) -> Sequence[Step]:
        return [NodeBusy("3 of 4 slots are in use", retry_after=0.001)] if len(request.starts) > 1 else [10]

    node = MockProtocol(script, capacity=4)
    async with subnet(node) as manager:
        deltas = await generated(manager, choices=4)
    assert [len(request.starts) for request in node.requests] == [4, 2, 1, 1, 1, 1]
    assert sorted(delta.choice for delta in deltas if delta.tokens) == [0, 1, 2, 3]


async def test_a_scripted_node_cuts_logprobs_with_their_tokens() -> None:
    """Of a delta that is too long, or in part there already, the logprobs are those of the tokens that are given."""
    entries = [TokenLogprobs(-float(token)) for token in (10, 11, 12)]
    delta = Delta(0, [10, 11, 12], entries)
    bad = MockProtocol([Delta(0, [10], entries[:1]), NodeLost("gone")], peer="bad")
    good = MockProtocol([delta], peer="good")
    async with subnet(bad, good) as manager:
        deltas = await generated(manager, Sampling(max_tokens=2, logprobs=0))
    assert [entry.logprob for delta in deltas for entry in delta.logprobs or ()] == [-10.0, -11.0]


async def test_closing_while_a_lost_node_is_left() -> None:
    """What is given up may take its time to end; no other node is asked after that, and nothing more is emitted."""
    given_up = asyncio.Event()

    class Slow(MockProtocol):
        async def rpc_inference(self, request: Generate, emit: DeltaSink, check: Check | None = None) -> None:
            try:
                await super().rpc_inference(request, emit, check)
            finally:
                given_up.set()
                await asyncio.sleep(0.05)

    other = MockProtocol([10], peer="b")
    async with subnet(Slow([10, HANG], peer="a"), other) as manager:
        session = Session(manager, limits=QUICK)
        task = asyncio.create_task(session.run([1], None, lambda delta: None))
        await given_up.wait()
        await session.close()
        with pytest.raises(SessionClosed):
            await task
    assert not other.requests


async def test_a_node_that_sends_no_tokens() -> None:
    """What it sent cannot be carried on, and the node that was to do that is not held for it."""
    nodes = [MockProtocol([Delta(0, [-1]), NodeLost("gone")], peer="a")]
    nodes.append(MockProtocol([10], peer="b", capabilities=Capabilities(resume="continue")))
    async with subnet(*nodes) as manager:
        with pytest.raises(ValueError, match="token ids"):
            await Session(manager, limits=QUICK).run([1], None, lambda delta: None)
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_another_model_does_not_continue() -> None:
    """A session that named no model keeps the one that began its answer; another may still begin one."""
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
    """A session that named no model is continued by a node with the model that began."""
    lost = MockProtocol([10, 11, NodeLost("gone")], peer="a", model="m")
    others = MockProtocol([20], peer="b", model="other"), MockProtocol([10, 11, 12], peer="c", model="m")
    async with subnet(lost, *others) as manager:
        for _ in range(6):
            async with SessionManager(manager, limits=QUICK).session() as session:
                tokens = [token async for delta in session.generate([1]) for token in delta.tokens]
            assert tokens in ([10, 11, 12], [20])
    assert lost.requests
