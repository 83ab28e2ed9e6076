"""Carrying on a lost answer: whatever the engine can do, the client gets what an undisturbed run gives."""

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
from subnet.errors import EngineFailed, NodeLost
from subnet.generation import Grammar, Job, Start, TokenLogprobs
from subnet.node_info import Capabilities, NodeInfo, Resume
from subnet.protocols.base import Protocol
from subnet.wire.messages import Accepted, Generate
from subnet.wire.tensors import token_ids, unpack

QUICK = Limits(first_token_timeout=5.0, inter_token_timeout=5.0, backoff=0.001, max_attempts=3)
PROMPT = list(b"a prompt")


class EngineProtocol(Protocol):
    """An engine without a wire between; the connection is lost after so many tokens of each life in `lives`."""

    def __init__(self, engine: EchoEngine, peer: str, lives: tuple[int, ...] = ()) -> None:
        self.peer = peer
        self.requests: list[Generate] = []
        self._engine = engine
        self._lives = list(lives)

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

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        self.requests.append(request)
        left = self._lives.pop(0) if self._lives else None
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
    resume: Resume, lives: tuple[int, ...], sampling: Sampling, choices: int = 1
) -> tuple[list[list[int]], list[object], list[object], EngineProtocol]:
    """Tokens, logprobs and finish reasons per choice, and the node that took over."""
    async with EchoEngine(options=EchoOptions(resume=resume, size=12)) as engine:
        first, second = EngineProtocol(engine, "first", lives), EngineProtocol(engine, "second", lives[1:])
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
async def test_killed_at_every_token(resume: Resume, kind: str) -> None:
    """Tokens, logprobs and finish reason are those of a run without a fault, for every place of the cut."""
    whole = (await answer(resume, (), KINDS[kind]))[:3]
    for cut in range(len(whole[0][0]) + 1):
        assert (await answer(resume, (cut,), KINDS[kind]))[:3] == whole


@pytest.mark.parametrize("resume", ["exact", "continue", "replay"])
async def test_several_deaths_and_choices(resume: Resume) -> None:
    """Three choices, three deaths: every choice is whole, and nothing is said twice."""
    for sampling in (GREEDY, Sampling(seed=5)):
        whole = (await answer(resume, (), sampling, choices=3))[:3]
        for cut in range(0, 36, 5):
            assert (await answer(resume, (cut, cut + 4, cut + 8), sampling, choices=3))[:3] == whole


async def test_an_unseeded_answer_is_continued() -> None:
    """Without a seed of the user's nobody can tell a continued answer from another draw: nothing is repeated."""
    *_, second = await answer("continue", (5,), Sampling(min_tokens=8, max_tokens=11))
    (asked,) = second.requests
    assert len(unpack(asked.prompt)) == len(PROMPT) + 5
    assert (asked.sampling.min_tokens, asked.sampling.max_tokens) == (3, 6)


@pytest.mark.parametrize("resume", ["exact", "continue", "replay"])
async def test_choices_of_which_nothing_came(resume: Resume) -> None:
    """They are asked for together, so that a node reads their prompt once."""
    *_, second = await answer(resume, (0,), Sampling(), choices=3)
    assert [[start.choice for start in request.starts] for request in second.requests] == [[0, 1, 2]]


def ledger(sampling: Sampling, *, diverged: bool = False) -> Ledger:
    made = Ledger(None, token_ids(PROMPT), sampling, 1, None)
    record_delta(made.choices, Delta(0, [1]))
    made.diverged = diverged
    return made


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
def test_which_way(sampling: Sampling, expected: str) -> None:
    """An engine that restores nothing continues only where the tokens tell everything."""
    assert choose_strategy(ledger(sampling), "exact") == "exact"
    assert choose_strategy(ledger(sampling), "continue") == expected
    assert choose_strategy(ledger(sampling), "replay") == "replay"


def test_after_a_replay_that_diverged() -> None:
    """Text is continued from what was delivered; half a JSON object cannot be."""
    assert choose_strategy(ledger(Sampling(seed=1), diverged=True), "replay") == "continue"
    with pytest.raises(Diverged):
        choose_strategy(ledger(Sampling(grammar=Grammar("json_schema", "{}")), diverged=True), "replay")


def test_what_comes_again() -> None:
    """However a replay is cut, what was delivered is left out, with its logprobs, and the end is not."""
    told = [TokenLogprobs(-float(token), (), ()) for token in range(4)]

    def replay() -> ResumePlan:
        made = ledger(Sampling(seed=1))
        record_delta(made.choices, Delta(0, [2]))
        return ResumePlan(made, "replay")

    again = replay()
    assert again.skip_delivered(Delta(0, [1], told[1:2])) is None
    assert again.skip_delivered(Delta(0, [2, 3], told[2:4])) == Delta(0, [3], told[3:4])
    assert again.skip_delivered(Delta(0, [4], None, "stop")) == Delta(0, [4], None, "stop")
    assert replay().skip_delivered(Delta(0, [1, 2], None, "length")) == Delta(0, [], None, "length")
    for other in (Delta(0, [1], None, "stop"), Delta(0, [], None, "stop"), Delta(0, [1, 3])):
        with pytest.raises(Diverged):
            replay().skip_delivered(other)


async def test_no_place_stays_taken_where_nothing_helps() -> None:
    """Half a JSON object that no node carries on is an error, and nothing of it is left on any node."""
    can = Capabilities(resume="replay", grammars=("json_schema",))
    broken = MockProtocol([10, EngineFailed("x")], peer="broken", capabilities=can)
    other = MockProtocol([20, 21], peer="other", capabilities=can)
    async with RemoteManager([broken, other], probe_interval=60.0) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        async with SessionManager(manager, limits=QUICK).session() as session:
            with pytest.raises(Diverged):
                await session.run([1], Sampling(grammar=Grammar("json_schema", "{}")), lambda delta: None)
        assert [remote.running for remote in manager.remotes] == [0, 0]


async def test_requests_for_several_choices_end_together() -> None:
    """An error of one ends the others, before it is raised."""
    closed = []

    async def ask(name: str, fails: bool) -> None:
        try:
            await asyncio.sleep(0)
            if fails:
                raise NodeLost(name)
            await asyncio.Event().wait()
        finally:
            closed.append(name)

    with pytest.raises(NodeLost):
        await gather_or_cancel([ask("a", False), ask("b", True)])
    assert sorted(closed) == ["a", "b"]


async def test_who_closes_what_is_pulled_may_be_cancelled() -> None:
    """A cancellation that comes while the work ends is not lost with the error of the work."""
    ending = asyncio.Event()

    async def push(emit: Callable[[int], None]) -> None:
        emit(1)
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.Event().wait()

    items = stream_from_callback(push)
    assert await anext(items) == 1
    closing = asyncio.create_task(items.aclose())
    await ending.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
