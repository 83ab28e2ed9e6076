"""vLLM engine, against recorded responses of vLLM's documented API."""

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
from subnet.engines.remote.sampling_params import Parameter
from subnet.engines.vllm import VllmEngine
from subnet.engines.vllm.vllm_api import SAMPLING
from subnet.errors import ContextLengthExceeded, EngineFailed, NodeError, NodeLost, SettingsError, SubnetError
from subnet.generation import Delta, Grammar, Job, Sampling, Start, TokenLogprobs, derive_seed
from subnet.http.node_spec import NodeSpec
from subnet.http.server_version import parse_version
from subnet.models.card import describe
from subnet.models.resolve import resolve
from subnet.node.run import listening, make_engine
from subnet.node.server import Node
from subnet.node.settings import NodeSettings
from subnet.protocols.in_process import InProcessProtocol
from subnet.tensors import token_ids
from tests.real_engine import run
from tests.recorded import RecordedServer, recorded

PROMPT = token_ids([1, 2, 3])
ALL_PARAMETERS: dict[str, Any] = {
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
"""Sampling parameters of the recordings called "everything"."""
EXPECTED_LOGPROBS = [
    TokenLogprobs(-0.5, (504, 2), (-0.5, -1.5)),
    TokenLogprobs(-3.0, (9, 8), (-0.2, -2.0)),
    TokenLogprobs(-0.1, (282, 11), (-0.1, -9999.0)),
]
"""Logprobs in the recordings called "everything"."""


@asynccontextmanager
async def replaying(*names: str, **spec: Any) -> AsyncIterator[tuple[VllmEngine, RecordedServer]]:
    async with recorded("vllm") as server:
        server.active = set(names)
        async with VllmEngine(NodeSpec(url=server.url, **spec)) as engine:
            yield engine, server


async def test_the_card_describes_the_first_model() -> None:
    """The tokenizer comes from the location of the server's model, the context length from the server."""
    async with replaying() as (engine, _):
        card, artefact = describe(resolve(None, print), "smol")
        assert engine.card == msgspec.structs.replace(card, context_length=256, weights=engine.card.weights)
        assert engine.artefact == artefact
        assert engine.capacity == NodeSpec(url="http://gpu-1").capacity


async def test_a_model_is_served_under_another_name() -> None:
    """A LoRA adapter has the tokenizer of its base model, and can be served under another id and context length."""
    async with replaying("greedy", models={"poet": "smol-poet"}, context_length=128) as (engine, server):
        assert (engine.card.id, engine.card.context_length) == ("poet", 128)
        await run(engine, PROMPT, temperature=0, max_tokens=20)
        assert server.requests[0]["model"] == "smol-poet"


async def test_weights_are_those_at_the_servers_location() -> None:
    """Weights are known by where the server has them, whatever its address or tokenizer; an adapter has its own."""
    tokenizer, found = str(resolve(None, print)), []
    for names, models in (([], {}), (["longer"], {}), ([], {"poet": "smol-poet"}), (["elsewhere"], {})):
        async with replaying(*names, models=models, tokenizer=tokenizer) as (engine, _):
            found.append(engine.card.weights)
    assert found[0] == found[1] != describe(resolve(None, print))[0].weights
    assert len({*found, ""}) == 4


async def test_an_unknown_model_is_reported() -> None:
    """The error for an unknown model names it and lists the server's models."""
    with pytest.raises(NodeError, match="does not serve other; its models: smol, smol-poet"):
        async with replaying(models={"mine": "other"}):
            raise AssertionError("the engine started with an unknown model")


async def test_an_answer_ends_before_the_end_token() -> None:
    """The request is the documented one, the end token is not delivered, and the last delta has cached_tokens."""
    async with replaying("greedy") as (engine, server):
        _, deltas = await run(engine, PROMPT, temperature=0, max_tokens=20)
        assert server.requests == [server.line("greedy").request]
        assert [delta.tokens for delta in deltas] == [[504], [3575, 282], []]
        assert (deltas[-1].finish_reason, deltas[-1].cached_tokens) == ("stop", 2)


async def test_every_parameter_is_mapped() -> None:
    """Every field of Sampling is sent under the server's name, and an unlikely token is no alternative."""
    async with replaying("everything") as (engine, server):
        tokens, deltas = await run(engine, PROMPT, **ALL_PARAMETERS)
        assert server.requests == [server.line("everything").request]
        assert tokens == [504, 3575, 282]
        assert [entry for delta in deltas for entry in delta.logprobs or []] == EXPECTED_LOGPROBS
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("recordings", "grammar"),
    [(["schema"], Grammar("json_schema", '{"type":"object"}')), (["regex of old", "old"], Grammar("regex", "[ab]+"))],
)
async def test_grammar_fields_depend_on_the_version(recordings: list[str], grammar: Grammar) -> None:
    """Before version 0.11 each kind of grammar has its own field."""
    async with replaying(*recordings) as (engine, server):
        await run(engine, PROMPT, max_tokens=20, grammar=grammar)
        assert server.requests == [server.line(recordings[0]).request]


async def test_each_choice_is_a_request_with_its_own_seed() -> None:
    """Each choice is a separate request, with a seed that does not depend on other choices."""
    async with replaying("greedy") as (engine, server):
        deltas: list[Delta] = []
        starts = tuple(Start(choice, token_ids([])) for choice in (0, 3))
        await engine.run(Job(PROMPT, Sampling(seed=1), starts), deltas.append)
        assert {body["seed"] for body in server.requests} == {derive_seed(1, 0), derive_seed(1, 3)}
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
async def test_incomplete_answers_raise_errors(name: str, error: type[SubnetError]) -> None:
    """An answer that is aborted, cut off or lacks token ids raises an error."""
    async with replaying(name) as (engine, _):
        with pytest.raises(error):
            await run(engine, PROMPT)


async def test_prompt_tokens_are_scored() -> None:
    """Every token of a prompt but the first is scored, unlikely ones, too."""
    async with replaying("score") as (engine, server):
        assert await engine.score(PROMPT, 1) == [
            TokenLogprobs(-4.0, (9,), (-0.5,)),
            TokenLogprobs(-0.25, (3,), (-0.25,)),
        ]
        assert server.requests == [server.line("score").request]


async def test_cancelling_closes_the_connection() -> None:
    """Cancelling a job closes the connection, which tells the server to stop."""
    async with replaying("endless") as (engine, server):
        await run_cancelled(engine)
        await server.disconnected.wait()


async def test_a_request_in_the_queue_is_kept_alive() -> None:
    """While vLLM's metrics show a queue, a request without a token is reported as alive, also of a detected server."""
    async with replaying("endless wait", first_token_timeout=0.3) as (engine, server):
        server.metrics = 'vllm:num_requests_waiting{model_name="smol"} 2.0\n'
        await run_cancelled(engine)


async def run_cancelled(engine: Engine) -> None:
    """Start a run and cancel it after its first delta."""
    started = asyncio.Event()
    job = Job(PROMPT, Sampling(seed=1), (Start(0, token_ids([])),))
    task = asyncio.create_task(engine.run(job, lambda delta: started.set()))
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_restarted_server_is_described_again() -> None:
    """A server whose engine is dead fails the check; after a restart it is described again."""
    now = count(step=10.0)
    async with recorded("vllm") as server:
        async with VllmEngine(NodeSpec(url=server.url), clock=lambda: next(now)) as engine:
            server.active = {"dead"}
            with pytest.raises(NodeError):
                await engine.check()
            server.active = {"longer"}
            await engine.check()
            assert engine.card.context_length == 512


@pytest.mark.parametrize(
    ("name", "message"),
    [("elsewhere", "set `tokenizer`"), ("stranger", "does not match its model"), ("ancient", "0.10.2 or later")],
)
async def test_unusable_servers_are_reported(name: str, message: str) -> None:
    """A missing or wrong tokenizer, or a server without token ids, is reported in one line that says what to do."""
    with pytest.raises(SettingsError, match=message) as caught:
        async with replaying(name):
            raise AssertionError("the engine started")
    assert "\n" not in caught.value.message


async def test_the_engine_runs_in_process() -> None:
    """The engine can be used by InProcessProtocol, without a node process."""
    async with recorded("vllm") as server:
        node = InProcessProtocol(VllmEngine(NodeSpec(url=server.url)), server.url)
        info = await node.rpc_info()
        await node.aclose()
        assert (info.engine, info.cards[0].id) == ("vllm", "smol")


async def test_the_engine_runs_in_a_node() -> None:
    """A node with the engine serves sessions from the upstream server."""
    async with recorded("vllm") as server:
        server.active = {"greedy"}
        settings = NodeSettings(engine="vllm", upstream=server.url, model="smol", model_id="mine", concurrency=3)
        async with make_engine(settings, print) as engine:
            assert (engine.card.id, engine.capacity) == ("mine", 3)
            async with listening(Node(engine), "127.0.0.1", 0) as address, RemoteManager([address]) as remotes:
                await remotes.ready()
                async with SessionManager(remotes).session() as session:
                    assert [t async for delta in session.generate(PROMPT) for t in delta.tokens] == [504, 3575, 282]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama-server"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs --upstream"),
        ({"upstream": "gpu-1"}, "upstream: 'gpu-1'"),
        ({"upstream": "http://gpu-1", "upstream_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
    ],
)
def test_a_node_without_its_server_does_not_start(kind: Any, settings: dict[str, Any], message: str) -> None:
    """Missing or invalid upstream settings are reported in one line."""
    with pytest.raises(SettingsError, match=message):
        make_engine(NodeSettings(engine=kind, **settings), print)


@pytest.mark.parametrize(
    ("text", "version"), [("0.11.0", (0, 11, 0)), ("0.10.2rc1", (0, 10, 2)), ("1.0", (1, 0, 0)), ("0.1.dev9+g1", None)]
)
def test_versions_are_parsed(text: str, version: tuple[int, ...] | None) -> None:
    """Versions are parsed, except for those of development builds."""
    assert parse_version(text) == version


def test_the_table_has_every_field() -> None:
    """Every field of Sampling is in the table, unless it is set separately or unsupported."""
    assert unmapped(SAMPLING) == {"max_tokens", "seed", "grammar", "typical_p"}


def unmapped(table: tuple[Parameter, ...]) -> set[str]:
    """Return the fields of Sampling that are not in the table."""
    return set(Sampling.__struct_fields__) - {entry.field for entry in table}
