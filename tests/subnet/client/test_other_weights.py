"""Resuming an answer on nodes whose weights differ from those that began it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from subnet import Delta, MockProtocol, RemoteManager, Sampling, SessionManager
from subnet.client.ledger.base import record_delta
from subnet.client.ledger.token import TokenLedger
from subnet.client.resume.token import Diverged, choose_strategy
from subnet.client.session import Session
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.errors import NodeLost
from subnet.generation import Grammar
from subnet.node_info import Capabilities, Placement, Resume
from subnet.protocols.base import Protocol
from subnet.tensors import token_ids, unpack
from tests.subnet.client.test_resume import PROMPT, QUICK, EngineProtocol

EXACT = Capabilities(resume="exact", grammars=("json_schema",))
GRAMMAR = Sampling(grammar=Grammar("json_schema", "{}"))
BEGUN: list[int | Exception] = [10, 11, NodeLost("killed")]


class PlacedMock(MockProtocol):
    """Scripted node with a priority."""

    priority = 0

    def placement(self, model: str) -> Placement:
        return Placement(self.priority)


def node(
    peer: str, script: Sequence[int | Exception], weights: str, priority: int = 0, capacity: int = 8
) -> PlacedMock:
    made = PlacedMock(script, peer=peer, weights=weights, capabilities=EXACT, capacity=capacity)
    made.priority = priority
    return made


@asynccontextmanager
async def session_on(*nodes: Protocol) -> AsyncIterator[Session]:
    """Yield a session on `nodes`, all of them healthy. The first is asked first."""
    async with RemoteManager(nodes, probe_interval=60.0) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        async with SessionManager(manager, limits=QUICK).session() as session:
            yield session


async def tokens_of(session: Session, sampling: Sampling | None = None) -> list[int]:
    return [token async for delta in session.generate(PROMPT, sampling) for token in delta.tokens]


def logged_by_client(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("subnet.client")]


async def test_the_rest_goes_to_the_same_weights() -> None:
    """A node with the same weights continues exactly, although another one has a better priority."""
    nodes = node("q8", BEGUN, "q8"), node("q4", [20, 21, 22], "q4"), node("backup", [10, 11, 12, 13], "q8", priority=1)
    async with session_on(*nodes) as session:
        assert await tokens_of(session) == [10, 11, 12, 13]
        assert session.ledger is not None
        assert (session.ledger.nodes, session.ledger.diverged) == (["q8", "backup"], False)
    assert [unpack(start.delivered).tolist() for start in nodes[2].requests[0].starts] == [[10, 11]]


async def test_other_weights_repeat_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """A node with other weights gets the whole request again, and continues if it repeats the beginning."""
    other = node("q4", [10, 11, 22], "q4" * 20)
    with caplog.at_level(logging.WARNING, "subnet.client"):
        async with session_on(node("q8", BEGUN, "q8"), other) as session:
            assert await tokens_of(session, GRAMMAR) == [10, 11, 22]
            assert session.ledger is not None
            assert (session.ledger.replayed_tokens, session.ledger.diverged) == (2, False)
    assert [len(unpack(start.delivered)) for start in other.requests[0].starts] == [0]
    (message,) = logged_by_client(caplog)
    assert "node q4 has other weights (q4q4q4q4q4q4) than the nodes that began an answer of mock (q8)" in message


async def test_other_weights_that_differ(caplog: pytest.LogCaptureFixture) -> None:
    """If the beginning is not repeated, the answer continues after its tokens, and the ledger and the log say so."""
    other = node("q4", [20, 21, 22], "q4")
    with caplog.at_level(logging.WARNING, "subnet.client"):
        async with session_on(node("q8", BEGUN, "q8"), other) as session:
            assert await tokens_of(session) == [10, 11, 20, 21, 22]
            assert session.ledger is not None
            assert session.ledger.diverged
    assert [len(unpack(request.prompt)) - len(PROMPT) for request in other.requests] == [0, 2]
    assert "node q4 cannot resume an answer: the replayed tokens differ from those delivered" in caplog.messages


async def test_other_weights_that_differ_under_a_grammar() -> None:
    """Under a grammar an answer is not continued by a node that does not repeat it: it raises Diverged."""
    async with session_on(node("q8", BEGUN, "q8"), node("q4", [20, 21, 22], "q4")) as session:
        with pytest.raises(Diverged):
            await tokens_of(session, GRAMMAR)


@pytest.mark.parametrize(("first", "second"), [("", "q4"), ("q8", ""), ("", ""), ("q8", "q8")])
async def test_unknown_weights_count_as_equal(first: str, second: str, caplog: pytest.LogCaptureFixture) -> None:
    """If one of the fingerprints is unknown, answers are resumed as if they were equal."""
    other = node("other", [10, 11, 12], second)
    with caplog.at_level(logging.WARNING, "subnet.client"):
        async with session_on(node("first", BEGUN, first), other) as session:
            assert await tokens_of(session) == [10, 11, 12]
    assert [len(unpack(start.delivered)) for start in other.requests[0].starts] == [2]
    assert not logged_by_client(caplog)


async def test_weights_are_those_of_the_last_tokens() -> None:
    """After a node with other weights has added tokens, its weights are those that the next node should have."""
    last = node("q4b", [10, 11, 22, 23], "q4", priority=1), node("q8b", [10, 11, 12], "q8", priority=2)
    first = node("q8", BEGUN, "q8"), node("q4", [10, 11, 22, NodeLost("killed")], "q4")
    async with session_on(*first, *last[:1]) as session:
        assert await tokens_of(session) == [10, 11, 22, 23]
    async with session_on(*last, first[1]) as session:
        assert await tokens_of(session) == [10, 11, 22, 23]
    assert [len(unpack(start.delivered)) for request in last[0].requests for start in request.starts] == [3, 3]
    assert not last[1].requests


async def test_each_choice_has_its_own_weights() -> None:
    """If one choice of an answer was resumed elsewhere, the others are still compared."""
    first = node("q8", [*BEGUN[:2], NodeLost("killed")], "q8")
    small = node("q4", [10, 11, 22], "q4", capacity=1)
    async with session_on(first, small) as session:
        deltas = [delta async for delta in session.generate(PROMPT, choices=2)]
    assert [[t for d in deltas if d.choice == choice for t in d.tokens] for choice in (0, 1)] == [[10, 11, 22]] * 2
    assert [len(unpack(start.delivered)) for request in small.requests for start in request.starts] == [0, 0]


async def test_echo_nodes_of_other_lengths() -> None:
    """An echo node of another length repeats the beginning of an answer, and ends it at its own length."""
    async with EchoEngine(options=EchoOptions(size=12)) as short, EchoEngine(options=EchoOptions(size=16)) as long:
        first, second = EngineProtocol(short, "first", (5,)), EngineProtocol(long, "second")
        async with session_on(first, second) as session:
            tokens = await tokens_of(session, Sampling(seed=3))
            assert session.ledger is not None
            assert session.ledger.replayed_tokens == 5
        async with session_on(second) as session:
            assert await tokens_of(session, Sampling(seed=3)) == tokens
    assert len(tokens) == 16


@pytest.mark.parametrize("supported", ["exact", "continue", "replay"])
def test_strategy_on_other_weights(supported: Resume) -> None:
    """A node with other weights gets a replay whatever it supports, and after that the rules for a diverged answer."""
    ledger = TokenLedger(None, token_ids(PROMPT), Sampling(), 1, None)
    ledger.record_weights("q8")
    assert choose_strategy(ledger, Capabilities(resume=supported), "q4") == "exact"  # no tokens yet
    record_delta(ledger.choices, Delta(0, [1]))
    ledger.record_weights("q8")
    assert (
        choose_strategy(ledger, Capabilities(resume=supported), "q8")
        == choose_strategy(ledger, Capabilities(resume=supported))
        == supported
    )
    assert choose_strategy(ledger, Capabilities(resume=supported), "q4") == "replay"
    ledger.diverged = True
    assert choose_strategy(ledger, Capabilities(resume=supported), "q4") == "continue"


def test_choices_of_different_weights() -> None:
    """A node repeats all choices of an answer if other weights than its own produced any of them."""
    ledger = TokenLedger(None, token_ids(PROMPT), Sampling(), 3, None)
    for choice, weights in enumerate(("w1", "w2")):
        record_delta(ledger.choices, Delta(choice, [10]))
        ledger.record_weights(weights)
    assert [choose_strategy(ledger, EXACT, weights) for weights in ("w1", "w2", "w3", "")] == ["replay"] * 3 + ["exact"]
    record_delta(ledger.choices, Delta(1, [11], finish_reason="stop"))
    assert [choose_strategy(ledger, EXACT, weights) for weights in ("w1", "w2")] == ["exact", "replay"]
