"""The engine in front of vLLM, against recorded shapes of its documented API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import pytest

from subnet import RemoteManager, SessionManager
from subnet.engines.base import Engine
from subnet.engines.remote.parameters import Parameter, seed_of
from subnet.engines.vllm import VllmEngine
from subnet.engines.vllm.api import SAMPLING, version_of
from subnet.errors import ContextLengthExceeded, EngineFailed, NodeError, NodeLost, SettingsError, SubnetError
from subnet.generation import Delta, Grammar, Job, Sampling, Start, TokenLogprobs
from subnet.http.node_spec import NodeSpec
from subnet.models.card import describe
from subnet.models.resolve import resolve
from subnet.node.run import listening, make_engine
from subnet.node.server import Node
from subnet.node.settings import NodeSettings
from subnet.protocols.in_process import InProcessProtocol
from subnet.wire.tensors import token_ids
from tests.real_engine import run
from tests.recorded import Recorded, recorded

PROMPT = token_ids([1, 2, 3])
EVERYTHING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.2,
    "repetition_penalty": 1.1,
    "logit_bias": {7: 1.5},
    "max_tokens": 9,
    "min_tokens": 2,
    "stop_tokens": (30,),
    "ignore_eos": True,
    "logprobs": 2,
}
"""What the recordings of that name are asked for."""
SCORES = [
    TokenLogprobs(-0.5, (504, 2), (-0.5, -1.5)),
    TokenLogprobs(-3.0, (9, 8), (-0.2, -2.0)),
    TokenLogprobs(-0.1, (282, 11), (-0.1, -9999.0)),
]
"""What they give."""


@asynccontextmanager
async def playing(*names: str, **spec: Any) -> AsyncIterator[tuple[VllmEngine, Recorded]]:
    async with recorded("vllm") as server:
        server.playing = set(names)
        async with VllmEngine(NodeSpec(url=server.url, **spec)) as engine:
            yield engine, server


async def test_it_describes_the_first_model() -> None:
    """Its tokenizer comes from where the server has the model, its length from the server."""
    async with playing() as (engine, _):
        card, artefact = describe(resolve(None, print), "smol")
        assert engine.card == msgspec.structs.replace(card, context_length=256)
        assert engine.artefact == artefact
        assert engine.capacity == NodeSpec(url="http://gpu-1").concurrency


async def test_a_model_is_served_under_another_name() -> None:
    """An adapter has the tokenizer and the length of its model; the operator's context length counts."""
    async with playing("greedy", models={"poet": "smol-poet"}, context_length=128) as (engine, server):
        assert (engine.card.id, engine.card.context_length) == ("poet", 128)
        await run(engine, PROMPT, temperature=0, max_tokens=20)
        assert server.asked[0]["model"] == "smol-poet"


async def test_a_model_that_is_not_there_is_missed_by_name() -> None:
    """The message lists those that are."""
    with pytest.raises(NodeError, match="does not serve other; its models: smol, smol-poet"):
        async with playing(models={"mine": "other"}):
            raise AssertionError("it has no such model")


async def test_an_answer_ends_before_the_end_token() -> None:
    """The body is the documented one; the ids come as they are sent, and the last delta has what was cached."""
    async with playing("greedy") as (engine, server):
        _, deltas = await run(engine, PROMPT, temperature=0, max_tokens=20)
        assert server.asked == [server.line("greedy").asked]
        assert [delta.tokens for delta in deltas] == [[504], [3575, 282], []]
        assert (deltas[-1].finish_reason, deltas[-1].cached_tokens) == ("stop", 2)


async def test_every_parameter_is_mapped() -> None:
    """All of Sampling, by the server's names; a token that was unlikely is not among the likeliest."""
    async with playing("everything") as (engine, server):
        tokens, deltas = await run(engine, PROMPT, **EVERYTHING)
        assert server.asked == [server.line("everything").asked]
        assert tokens == [504, 3575, 282]
        assert [each for delta in deltas for each in delta.logprobs or []] == SCORES
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("playing_", "grammar"),
    [(["schema"], Grammar("json_schema", '{"type":"object"}')), (["regex of old", "old"], Grammar("regex", "[ab]+"))],
)
async def test_grammars_go_by_the_servers_version(playing_: list[str], grammar: Grammar) -> None:
    """Before 0.11 each kind had a field of its own."""
    async with playing(*playing_) as (engine, server):
        await run(engine, PROMPT, max_tokens=20, grammar=grammar)
        assert server.asked == [server.line(playing_[0]).asked]


async def test_each_choice_is_a_request_with_its_own_seed() -> None:
    """So that it draws the same whichever others there are."""
    async with playing("greedy") as (engine, server):
        deltas: list[Delta] = []
        starts = tuple(Start(choice, token_ids([])) for choice in (0, 3))
        await engine.run(Job(PROMPT, Sampling(seed=1), starts), deltas.append)
        assert {body["seed"] for body in server.asked} == {seed_of(1, 0), seed_of(1, 3)}
        assert sum(delta.finish_reason is not None for delta in deltas) == 2


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("abort", EngineFailed),
        ("error", NodeError),
        ("cut", NodeLost),
        ("no ids", EngineFailed),
        ("too long", ContextLengthExceeded),
    ],
)
async def test_what_goes_wrong_has_its_own_error(name: str, error: type[SubnetError]) -> None:
    """An answer that is no whole one is never taken for one."""
    async with playing(name) as (engine, _):
        with pytest.raises(error):
            await run(engine, PROMPT)


async def test_the_tokens_of_a_prompt_are_scored() -> None:
    """All but the first; unlikely ones too."""
    async with playing("score") as (engine, server):
        assert await engine.score(PROMPT, 1) == [
            TokenLogprobs(-4.0, (9,), (-0.5,)),
            TokenLogprobs(-0.25, (3,), (-0.25,)),
        ]
        assert server.asked == [server.line("score").asked]


async def test_cancelling_closes_the_connection() -> None:
    """The server is told by that, and stops."""
    async with playing("endless") as (engine, server):
        await cancelled(engine)
        await server.left.wait()


async def cancelled(engine: Engine) -> None:
    """A run that was cancelled after its first token."""
    begun = asyncio.Event()
    job = Job(PROMPT, Sampling(seed=1), (Start(0, token_ids([])),))
    task = asyncio.create_task(engine.run(job, lambda delta: begun.set()))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_server_that_was_restarted_is_described_anew() -> None:
    """While its engine is dead the node is not well; and what was asked within a second is not asked again."""
    now = count(step=10.0)
    async with recorded("vllm") as server:
        async with VllmEngine(NodeSpec(url=server.url), clock=lambda: next(now)) as engine:
            server.playing = {"dead"}
            with pytest.raises(NodeError):
                await engine.check()
            server.playing = {"longer"}
            await engine.check()
            assert engine.card.context_length == 512


@pytest.mark.parametrize(
    ("name", "words"),
    [("elsewhere", "set `tokenizer`"), ("stranger", "does not match its model"), ("ancient", "0.10.2 or later")],
)
async def test_what_cannot_be_served_by_tokens_is_said(name: str, words: str) -> None:
    """No tokenizer, or no ids: in one line, with what to do."""
    with pytest.raises(SettingsError, match=words) as caught:
        async with playing(name):
            raise AssertionError("it cannot be used")
    assert "\n" not in caught.value.message


async def test_it_is_a_node_without_a_process_of_its_own() -> None:
    """Straight from the gateway: described and asked through InProcessProtocol."""
    async with recorded("vllm") as server:
        node = InProcessProtocol(VllmEngine(NodeSpec(url=server.url)), server.url)
        info = await node.rpc_info()
        await node.aclose()
        assert (info.engine, info.cards[0].id) == ("vllm", "smol")


async def test_it_is_a_node_with_a_process_of_its_own() -> None:
    """As `subnet node --engine vllm --upstream URL` has it: sessions ask the node, and the node the server."""
    async with recorded("vllm") as server:
        server.playing = {"greedy"}
        settings = NodeSettings(engine="vllm", upstream=server.url, model="smol", model_id="mine", concurrency=3)
        async with make_engine(settings, print) as engine:
            assert (engine.card.id, engine.capacity) == ("mine", 3)
            async with listening(Node(engine), "127.0.0.1", 0) as address, RemoteManager([address]) as remotes:
                await remotes.ready()
                async with SessionManager(remotes).session() as session:
                    assert [t async for delta in session.generate(PROMPT) for t in delta.tokens] == [504, 3575, 282]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama-server"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "needs --upstream"),
        ({"upstream": "gpu-1"}, "upstream: 'gpu-1'"),
        ({"upstream": "http://gpu-1", "upstream_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
    ],
)
def test_a_node_without_its_server_does_not_start(kind: Any, settings: dict[str, Any], words: str) -> None:
    """What is wrong is said in one line."""
    with pytest.raises(SettingsError, match=words):
        make_engine(NodeSettings(engine=kind, **settings), print)


@pytest.mark.parametrize(
    ("text", "version"), [("0.11.0", (0, 11, 0)), ("0.10.2rc1", (0, 10, 2)), ("1.0", (1, 0, 0)), ("0.1.dev9+g1", None)]
)
def test_versions_are_read(text: str, version: tuple[int, ...] | None) -> None:
    """A build from between versions may be any."""
    assert version_of(text) == version


def test_the_table_has_every_field() -> None:
    """What is not in it depends on more than its value, or is not declared."""
    assert unmapped(SAMPLING) == {"max_tokens", "seed", "grammar", "typical_p"}


def unmapped(table: tuple[Parameter, ...]) -> set[str]:
    return set(Sampling.__struct_fields__) - {each.ours for each in table}
