"""SGLang engine, against recorded responses of SGLang's documented API."""

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
from subnet.engines.sglang.sglang_api import SAMPLING, GenerateEvent, IncrementDecoder, Logprob, Meta
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeError, NodeLost, SettingsError, SubnetError
from subnet.generation import Grammar, TokenLogprobs
from subnet.http.node_spec import NodeSpec
from subnet.models.card import describe
from subnet.models.resolve import resolve
from tests.real_engine import run
from tests.recorded import RecordedServer, recorded
from tests.subnet.engines.test_vllm_engine import ALL_PARAMETERS, EXPECTED_LOGPROBS, PROMPT, run_cancelled, unmapped

Style = Literal["cumulative", "incremental", "ids incremental"]


@asynccontextmanager
async def replaying(*names: str, **spec: Any) -> AsyncIterator[tuple[SglangEngine, RecordedServer]]:
    async with recorded("sglang") as server:
        server.active = set(names)
        async with SglangEngine(NodeSpec(url=server.url, **spec)) as engine:
            yield engine, server


@pytest.mark.parametrize("names", [[], ["new"]])
async def test_the_card_describes_the_servers_model(names: list[str]) -> None:
    """The model is described at the newer or the older path, with the tokenizer from the server's location."""
    async with replaying(*names) as (engine, _):
        card, artefact = describe(resolve(None, print), "smol")
        assert engine.card == msgspec.structs.replace(card, context_length=256, weights=engine.card.weights)
        assert engine.artefact == artefact


async def test_weights_have_a_location_and_a_version() -> None:
    """Weights are known by where the server has them, and by their version, which changes without a restart."""
    tokenizer, found = str(resolve(None, print)), []
    for names in ([], [], ["updated"], ["new"]):
        async with replaying(*names, tokenizer=tokenizer) as (engine, _):
            found.append(engine.card.weights)
    assert found[0] == found[1]
    assert len({*found, ""}) == 4


@pytest.mark.parametrize("name", ["cumulative", "incremental"])
async def test_an_answer_ends_before_the_end_token(name: str) -> None:
    """The deltas have only new tokens, from cumulative or incremental events, and the first has cached_tokens."""
    async with replaying(name) as (engine, server):
        _, deltas = await run(engine, PROMPT, temperature=0, max_tokens=20)
        assert server.requests == [server.line(name).request]
        assert [delta.tokens for delta in deltas] == [[504], [3575, 282], []]
        assert [delta.cached_tokens for delta in deltas] == [2, 0, 0]
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("name", ["everything", "everything alone", "everything of old"])
async def test_every_parameter_is_mapped(name: str) -> None:
    """Every field of Sampling is sent under the server's name, and logprobs are assigned to their tokens."""
    async with replaying(name) as (engine, server):
        tokens, deltas = await run(engine, PROMPT, **ALL_PARAMETERS)
        assert server.requests == [server.line(name).request]
        assert tokens == [504, 3575, 282]
        assert [entry for delta in deltas for entry in delta.logprobs or []] == EXPECTED_LOGPROBS
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("name", "grammar"),
    [("schema", Grammar("json_schema", '{"type":"object"}')), ("regex", Grammar("regex", "[ab]+"))],
)
async def test_each_kind_of_grammar_has_its_field(name: str, grammar: Grammar) -> None:
    """Each kind of grammar has its own field, and an answer at its maximum length ends with "length"."""
    async with replaying(name) as (engine, server):
        _, deltas = await run(engine, PROMPT, max_tokens=20, grammar=grammar)
        assert server.requests == [server.line(name).request]
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
async def test_incomplete_answers_raise_errors(name: str, error: type[SubnetError]) -> None:
    """An answer that is aborted, rejected or cut off raises an error."""
    async with replaying(name) as (engine, _):
        with pytest.raises(error):
            await run(engine, PROMPT)


async def test_a_penalty_out_of_range_is_rejected() -> None:
    """A repetition penalty above SGLang's maximum is rejected by name."""
    async with replaying("cumulative") as (engine, server):
        with pytest.raises(InvalidRequest) as caught:
            await run(engine, PROMPT, repetition_penalty=3.0)
        assert caught.value.param == "repetition_penalty"
        assert not server.requests


async def test_cancelling_closes_the_connection() -> None:
    """Cancelling a job closes the connection, which tells the server to stop."""
    async with replaying("endless") as (engine, server):
        await run_cancelled(engine)
        await server.disconnected.wait()


async def test_a_restarted_server_is_described_again() -> None:
    """A server that was restarted with another context length is described again."""
    now = count(step=10.0)
    async with recorded("sglang") as server:
        async with SglangEngine(NodeSpec(url=server.url), clock=lambda: next(now)) as engine:
            server.active = {"longer"}
            await engine.check()
            assert engine.card.context_length == 512


@pytest.mark.parametrize(("names", "spec"), [([], {"tokenizer": "/nowhere"}), (["stranger"], {})])
async def test_a_missing_or_wrong_tokenizer_is_reported(names: list[str], spec: dict[str, Any]) -> None:
    """A missing tokenizer, or one that differs from the server's, raises an error that says what to set."""
    with pytest.raises(SettingsError, match="set `tokenizer`"):
        async with replaying(*names, **spec):
            raise AssertionError("the engine started without a tokenizer")


def test_the_table_has_every_field() -> None:
    """Every field of Sampling is in the table, unless it is set separately or unsupported."""
    assert unmapped(SAMPLING) == {"max_tokens", "seed", "grammar", "logprobs", "typical_p"}


@given(
    st.lists(st.integers(0, 9), max_size=12),
    st.sets(st.integers(0, 12)),
    st.sampled_from(["cumulative", "incremental", "ids incremental"]),
    st.booleans(),
)
def test_decoding_does_not_depend_on_the_events(
    ids: list[int], cuts: set[int], style: Style, with_logprobs: bool
) -> None:
    """However an answer is split into events, and whatever these repeat, the decoded tokens are the same."""
    decoder = IncrementDecoder()
    tokens: list[int] = []
    logprobs: list[TokenLogprobs] = []
    for start, end in pairwise(sorted({0, *(cut for cut in cuts if cut < len(ids)), len(ids)})):
        new_tokens, new_logprobs = decoder.decode(make_event(ids, start, end, style), 1 if with_logprobs else None)
        tokens += new_tokens
        logprobs += new_logprobs or []
    assert tokens == ids
    assert [entry.logprob for entry in logprobs] == (
        [-float(position) for position in range(len(ids))] if with_logprobs else []
    )


def test_tokens_wait_for_their_logprobs() -> None:
    """A token whose logprobs have not arrived is delivered with the next event."""
    decoder = IncrementDecoder()
    early = GenerateEvent(
        output_ids=(5, 6), meta_info=Meta(completion_tokens=1, output_token_logprobs=make_logprobs([5]))
    )
    late = GenerateEvent(
        output_ids=(5, 6), meta_info=Meta(completion_tokens=2, output_token_logprobs=make_logprobs([5, 6]))
    )
    assert [decoder.decode(event, 0)[0] for event in (early, late)] == [[5], [6]]


def make_event(ids: Sequence[int], start: int, end: int, style: Style) -> GenerateEvent:
    """Return an event with the tokens from `start` to `end`, cumulative or incremental by `style`."""
    all_logprobs = make_logprobs(ids)
    logprobs = all_logprobs[start:end] if style == "incremental" else all_logprobs[:end]
    meta = Meta(
        completion_tokens=end, output_token_logprobs=logprobs, output_top_logprobs=[[entry] for entry in logprobs]
    )
    return GenerateEvent(output_ids=tuple(ids[:end] if style == "cumulative" else ids[start:end]), meta_info=meta)


def make_logprobs(ids: Sequence[int]) -> list[Logprob]:
    return [(-float(position), token, None) for position, token in enumerate(ids)]
