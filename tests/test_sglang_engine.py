"""The engine in front of SGLang, against recorded shapes of its documented API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.sglang import SglangEngine
from subnet.engines.sglang.api import SAMPLING, Increments, Logprob, Meta, Output
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeError, NodeLost, SettingsError, SubnetError
from subnet.generation import Grammar, TokenLogprobs
from subnet.http.node_spec import NodeSpec
from subnet.models.card import describe
from subnet.models.resolve import resolve
from tests.real_engine import run
from tests.recorded import Recorded, recorded
from tests.test_vllm_engine import EVERYTHING, PROMPT, SCORES, cancelled, unmapped

Style = Literal["all", "alone", "ids alone"]


@asynccontextmanager
async def playing(*names: str, **spec: Any) -> AsyncIterator[tuple[SglangEngine, Recorded]]:
    async with recorded("sglang") as server:
        server.playing = set(names)
        async with SglangEngine(NodeSpec(url=server.url, **spec)) as engine:
            yield engine, server


@pytest.mark.parametrize("names", [[], ["new"]])
async def test_it_describes_the_model(names: list[str]) -> None:
    """By the newer name of the question and by the older; the tokenizer from where the server has it."""
    async with playing(*names) as (engine, _):
        card, artefact = describe(resolve(None, print), "smol")
        assert engine.card == msgspec.structs.replace(card, context_length=256)
        assert engine.artefact == artefact


@pytest.mark.parametrize("name", ["cumulative", "incremental"])
async def test_an_answer_ends_before_the_end_token(name: str) -> None:
    """Whether events have all ids or new ones alone, each delta has the new ones, the first what was cached."""
    async with playing(name) as (engine, server):
        _, deltas = await run(engine, PROMPT, temperature=0, max_tokens=20)
        assert server.asked == [server.line(name).asked]
        assert [delta.tokens for delta in deltas] == [[504], [3575, 282], []]
        assert [delta.cached_tokens for delta in deltas] == [2, 0, 0]
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("name", ["everything", "everything alone", "everything of old"])
async def test_every_parameter_is_mapped(name: str) -> None:
    """All of Sampling, by the server's names; and logprobs stay with their tokens."""
    async with playing(name) as (engine, server):
        tokens, deltas = await run(engine, PROMPT, **EVERYTHING)
        assert server.asked == [server.line(name).asked]
        assert tokens == [504, 3575, 282]
        assert [each for delta in deltas for each in delta.logprobs or []] == SCORES
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("name", "grammar"),
    [("schema", Grammar("json_schema", '{"type":"object"}')), ("regex", Grammar("regex", "[ab]+"))],
)
async def test_grammars_have_a_field_each(name: str, grammar: Grammar) -> None:
    """And a length is a length."""
    async with playing(name) as (engine, server):
        _, deltas = await run(engine, PROMPT, max_tokens=20, grammar=grammar)
        assert server.asked == [server.line(name).asked]
        assert deltas[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("abort", NodeError),
        ("abort of a mistake", InvalidRequest),
        ("too long", ContextLengthExceeded),
        ("cut", NodeLost),
    ],
)
async def test_what_goes_wrong_has_its_own_error(name: str, error: type[SubnetError]) -> None:
    """An answer that is no whole one is never taken for one."""
    async with playing(name) as (engine, _):
        with pytest.raises(error):
            await run(engine, PROMPT)


async def test_a_penalty_beyond_its_range_is_refused_by_name() -> None:
    """It takes less than others do."""
    async with playing("cumulative") as (engine, server):
        with pytest.raises(InvalidRequest) as caught:
            await run(engine, PROMPT, repetition_penalty=3.0)
        assert caught.value.param == "repetition_penalty"
        assert not server.asked


async def test_cancelling_closes_the_connection() -> None:
    """The server is told by that, and stops."""
    async with playing("endless") as (engine, server):
        await cancelled(engine)
        await server.left.wait()


async def test_a_server_that_was_restarted_is_described_anew() -> None:
    """With another length, say."""
    now = count(step=10.0)
    async with recorded("sglang") as server:
        async with SglangEngine(NodeSpec(url=server.url), clock=lambda: next(now)) as engine:
            server.playing = {"longer"}
            await engine.check()
            assert engine.card.context_length == 512


@pytest.mark.parametrize(("names", "spec"), [([], {"tokenizer": "/nowhere"}), (["stranger"], {})])
async def test_a_tokenizer_that_cannot_be_had_is_said(names: list[str], spec: dict[str, Any]) -> None:
    """With what to set: where there is none, and where it is another than the server's."""
    with pytest.raises(SettingsError, match="set `tokenizer`"):
        async with playing(*names, **spec):
            raise AssertionError("it has none")


def test_the_table_has_every_field() -> None:
    """What is not in it depends on more than its value, or is not declared."""
    assert unmapped(SAMPLING) == {"max_tokens", "seed", "grammar", "logprobs", "typical_p"}


@given(
    st.lists(st.integers(0, 9), max_size=12),
    st.sets(st.integers(0, 12)),
    st.sampled_from(["all", "alone", "ids alone"]),
    st.booleans(),
)
def test_any_steps_give_the_same(ids: list[int], cuts: set[int], style: Style, scored: bool) -> None:
    """However an answer is cut into events, and whatever these repeat."""
    increments = Increments()
    found: list[int] = []
    scores: list[TokenLogprobs] = []
    for start, end in pairwise(sorted({0, *(cut for cut in cuts if cut < len(ids)), len(ids)})):
        more, told = increments.decode(event(ids, start, end, style), 1 if scored else None)
        found += more
        scores += told or []
    assert found == ids
    assert [each.logprob for each in scores] == ([-float(at) for at in range(len(ids))] if scored else [])


def test_logprobs_that_come_late_are_waited_for() -> None:
    """Ids may be ahead of them in an event, for the server goes on writing into its list."""
    increments = Increments()
    early = Output(output_ids=(5, 6), meta_info=Meta(completion_tokens=1, output_token_logprobs=lines([5])))
    late = Output(output_ids=(5, 6), meta_info=Meta(completion_tokens=2, output_token_logprobs=lines([5, 6])))
    assert [increments.decode(output, 0)[0] for output in (early, late)] == [[5], [6]]


def event(ids: Sequence[int], start: int, end: int, style: Style) -> Output:
    own = lines(ids)
    logprobs = own[start:end] if style == "alone" else own[:end]
    meta = Meta(
        completion_tokens=end, output_token_logprobs=logprobs, output_top_logprobs=[[each] for each in logprobs]
    )
    return Output(output_ids=tuple(ids[:end] if style == "all" else ids[start:end]), meta_info=meta)


def lines(ids: Sequence[int]) -> list[Logprob]:
    return [(-float(at), token, None) for at, token in enumerate(ids)]
