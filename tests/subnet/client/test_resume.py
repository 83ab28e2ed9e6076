"""Resuming an interrupted answer: the client gets what an uninterrupted run returns, with every strategy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from subnet import Delta, Limits, MockProtocol, RemoteManager, Sampling, SessionManager
from subnet.aio import gather_or_cancel, stream_from_callback
from subnet.client.ledger.base import record_delta
from subnet.client.ledger.token import TokenLedger as Ledger
from subnet.client.resume.token import Diverged, ResumePlan, choose_strategy
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.errors import EngineFailed, NodeLost, WireError
from subnet.generation import Grammar, Job, Start, TokenLogprobs
from subnet.node_info import Capabilities, NodeInfo, Resume
from subnet.protocols.base import Protocol
from subnet.tensors import token_ids, unpack
from subnet.wire.messages import Generate

QUICK = Limits(first_token_timeout=5.0, inter_token_timeout=5.0, backoff=0.001, max_attempts=3)
PROMPT = list(b"a prompt")


class EngineProtocol(Protocol):
    """Engine called in process; request i loses its connection after `losses[i]` deltas."""

    def __init__(self, engine: EchoEngine, peer: str, losses: tuple[int, ...] = ()) -> None:
        self.peer = peer
        self.requests: list[Generate] = []
        self._engine = engine
        self._losses = list(losses)

    async def rpc_info(self) -> NodeInfo:
        engine = self._engine
        return NodeInfo(
            node_id=self.peer,
            version="0",
            engine="echo",
            cards=(engine.card,),
            capabilities=engine.capabilities,
            capacity=engine.capacity,
        )

    async def rpc_artefact(self, sha256: str) -> bytes:
        return self._engine.artefact

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        left = self._losses.pop(0) if self._losses else None
        deltas: asyncio.Queue[Delta] = asyncio.Queue()
        starts = tuple(Start(start.choice, token_ids(unpack(start.delivered))) for start in request.starts)
        job = Job(token_ids(unpack(request.prompt)), request.sampling, starts)
        running = asyncio.create_task(self._engine.run(job, deltas.put_nowait))
        unfinished = len(starts)
        try:
            while unfinished:
                if left == 0:
                    raise NodeLost("killed")
                delta = await deltas.get()
                unfinished -= delta.finish_reason is not None
                left = None if left is None else left - 1
                yield delta
        finally:
            running.cancel()

    async def aclose(self) -> None:
        return None


async def answer(
    resume: Resume, losses: tuple[int, ...], sampling: Sampling, choices: int = 1
) -> tuple[list[list[int]], list[object], list[object], EngineProtocol]:
    """Return tokens, logprobs and finish reasons per choice, and the second node."""
    async with EchoEngine(options=EchoOptions(resume=resume, size=12)) as engine:
        first, second = EngineProtocol(engine, "first", losses), EngineProtocol(engine, "second", losses[1:])
        async with RemoteManager([first, second], probe_interval=60.0) as manager:
            await manager.ready()
            tokens: list[list[int]] = [[] for _ in range(choices)]
            logprobs: list[list[object]] = [[] for _ in range(choices)]
            reasons: list[object] = [None] * choices
            async with SessionManager(manager, limits=QUICK).session() as session:
                async for delta in session.generate(PROMPT, sampling, choices=choices):
                    tokens[delta.choice] += delta.tokens
                    logprobs[delta.choice] += delta.logprobs or []
                    assert reasons[delta.choice] is None
                    reasons[delta.choice] = delta.finish_reason
    return tokens, list(logprobs), reasons, second


GREEDY = Sampling(temperature=0.0, seed=1, max_tokens=12)
KINDS = {
    "greedy": GREEDY,
    "seeded": Sampling(seed=5),
    "limited": Sampling(seed=5, max_tokens=9),
    "logprobs": Sampling(seed=5, logprobs=2),
}


@pytest.mark.parametrize("resume", ["exact", "continue", "replay"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_loss_at_every_token(resume: Resume, kind: str) -> None:
    """Tokens, logprobs and finish reason equal those of an uninterrupted run, wherever the node is lost."""
    whole = (await answer(resume, (), KINDS[kind]))[:3]
    for cut in range(len(whole[0][0]) + 1):
        assert (await answer(resume, (cut,), KINDS[kind]))[:3] == whole


@pytest.mark.parametrize("resume", ["exact", "continue", "replay"])
async def test_several_losses_and_choices(resume: Resume) -> None:
    """Three choices survive three losses: every choice is complete, and no token is repeated."""
    for sampling in (GREEDY, Sampling(seed=5)):
        whole = (await answer(resume, (), sampling, choices=3))[:3]
        for cut in range(0, 36, 5):
            assert (await answer(resume, (cut, cut + 4, cut + 8), sampling, choices=3))[:3] == whole


async def test_an_unseeded_answer_is_continued() -> None:
    """An answer without a caller's seed is continued after its delivered tokens instead of replayed."""
    *_, second = await answer("continue", (5,), Sampling(min_tokens=8, max_tokens=11))
    (request,) = second.requests
    assert len(unpack(request.prompt)) == len(PROMPT) + 5
    assert (request.sampling.min_tokens, request.sampling.max_tokens) == (3, 6)
    assert [start.position for start in request.starts] == [5]


@pytest.mark.parametrize("resume", ["exact", "continue", "replay"])
async def test_choices_without_tokens_share_a_request(resume: Resume) -> None:
    """Choices without delivered tokens are resumed in one request, so that the node processes the prompt once."""
    *_, second = await answer(resume, (0,), Sampling(), choices=3)
    assert [[start.choice for start in request.starts] for request in second.requests] == [[0, 1, 2]]


def ledger_with_one_token(sampling: Sampling, *, diverged: bool = False) -> Ledger:
    ledger = Ledger(None, token_ids(PROMPT), sampling, 1, None)
    record_delta(ledger.choices, Delta(0, [1]))
    ledger.diverged = diverged
    return ledger


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), "continue"),
        (GREEDY, "continue"),
        (Sampling(seed=1), "replay"),
        (Sampling(frequency_penalty=1.0), "replay"),
        (Sampling(presence_penalty=1.0), "replay"),
        (Sampling(repetition_penalty=1.1), "replay"),
        (Sampling(grammar=Grammar("json_schema", "{}")), "replay"),
    ],
)
def test_strategy(sampling: Sampling, expected: str) -> None:
    """An engine with "continue" gets a replay if the next token depends on a seed, penalties or a grammar."""
    assert choose_strategy(ledger_with_one_token(sampling), Capabilities(resume="exact")) == "exact"
    assert choose_strategy(ledger_with_one_token(sampling), Capabilities(resume="continue")) == expected
    assert choose_strategy(ledger_with_one_token(sampling), Capabilities(resume="replay")) == "replay"


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(seed=1), "continue"),
        (Sampling(seed=1, frequency_penalty=1.0), "replay"),
        (Sampling(seed=1, grammar=Grammar("json_schema", "{}")), "replay"),
    ],
)
def test_strategy_where_draws_go_by_position(sampling: Sampling, expected: str) -> None:
    """Where the same seed goes on with the same draws, a seed is no reason for a replay."""
    assert choose_strategy(ledger_with_one_token(sampling), Capabilities(positional_draws=True)) == expected


def test_strategy_after_a_diverged_replay() -> None:
    """After a diverged replay, text is continued, and an answer under a grammar raises Diverged."""
    capabilities = Capabilities(resume="replay")
    assert choose_strategy(ledger_with_one_token(Sampling(seed=1), diverged=True), capabilities) == "continue"
    with pytest.raises(Diverged):
        choose_strategy(
            ledger_with_one_token(Sampling(grammar=Grammar("json_schema", "{}")), diverged=True), capabilities
        )


def test_delivered_tokens_are_skipped() -> None:
    """A replay skips delivered tokens with their logprobs, keeps the finish reason, and raises if a token differs."""
    logprobs = [TokenLogprobs(-float(token), (), ()) for token in range(4)]

    def replay() -> ResumePlan:
        ledger = ledger_with_one_token(Sampling(seed=1))
        record_delta(ledger.choices, Delta(0, [2]))
        return ResumePlan(ledger, Capabilities(resume="replay"))

    plan = replay()
    assert plan.skip_delivered(Delta(0, [1], logprobs[1:2])) is None
    assert plan.skip_delivered(Delta(0, [2, 3], logprobs[2:4])) == Delta(0, [3], logprobs[3:4])
    assert plan.skip_delivered(Delta(0, [4], None, "stop")) == Delta(0, [4], None, "stop")
    assert replay().skip_delivered(Delta(0, [1, 2], None, "length")) == Delta(0, [], None, "length")
    for other in (Delta(0, [1], None, "stop"), Delta(0, [], None, "stop"), Delta(0, [1, 3])):
        with pytest.raises(Diverged):
            replay().skip_delivered(other)


async def test_leases_are_released_if_no_node_can_continue() -> None:
    """An answer under a grammar that no node can continue raises Diverged and leaves no active lease."""
    capabilities = Capabilities(resume="replay", grammars=("json_schema",))
    broken = MockProtocol([10, EngineFailed("x")], peer="broken", capabilities=capabilities)
    other = MockProtocol([20, 21], peer="other", capabilities=capabilities)
    async with RemoteManager([broken, other], probe_interval=60.0) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        async with SessionManager(manager, limits=QUICK).session() as session:
            with pytest.raises(Diverged):
                await session.run([1], Sampling(grammar=Grammar("json_schema", "{}")), lambda delta: None)
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_gather_or_cancel_cancels_the_rest() -> None:
    """An error of one coroutine is raised after all others were cancelled and have ended."""
    closed = []

    async def call(name: str, fails: bool) -> None:
        try:
            await asyncio.sleep(0)
            if fails:
                raise NodeLost(name)
            await asyncio.Event().wait()
        finally:
            closed.append(name)

    with pytest.raises(NodeLost):
        await gather_or_cancel([call("a", False), call("b", True)])
    assert sorted(closed) == ["a", "b"]


async def test_closing_a_stream_can_be_cancelled() -> None:
    """Cancelling the task that closes a stream raises CancelledError there, even while the producer is ending."""
    ending = asyncio.Event()

    async def produce(emit: Callable[[int], None]) -> None:
        emit(1)
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.Event().wait()

    items = stream_from_callback(produce)
    assert await anext(items) == 1
    closing = asyncio.create_task(items.aclose())
    await ending.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


@pytest.mark.parametrize("more", [Delta(0, [2]), Delta(0, [], finish_reason="stop")])
def test_nothing_follows_the_end(more: Delta) -> None:
    """A delta after the last one of its choice is refused, and the other choices go on."""
    ledger = Ledger(None, token_ids(PROMPT), Sampling(), 2, None)
    record_delta(ledger.choices, Delta(0, [1], finish_reason="stop"))
    with pytest.raises(WireError, match="finished choice"):
        record_delta(ledger.choices, more)
    assert ledger.choices[0].tokens == [1]
    record_delta(ledger.choices, Delta(1, [2]))
