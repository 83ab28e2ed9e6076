"""llama-server engine with a real server: its output equals that of the llama.cpp engine."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from subnet import Limits, RemoteManager, SessionManager
from subnet.engines.llama_cpp import LlamaCppEngine
from subnet.engines.llama_server import LlamaServerEngine
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeLost, SettingsError
from subnet.generation import Delta, Grammar, Job, Sampling, Start, TokenLogprobs
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact
from subnet.protocols.in_process import InProcessProtocol
from subnet.tensors import token_ids
from tests.llama_server import llama_server
from tests.processes import Running
from tests.real_engine import PERSON, chat, make_engine, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG, SHORT = 2048, 256
"""Context lengths of a slot, in tokens. It takes most of a minute to fill the long one."""
SPLIT = {10813: 12.0, 232: 12.0, 227: 12.0, 7906: 12.0, 251: 12.0}
"""Bias towards the tokens that 🎉 and 中 consist of."""
FORCED = 'start: "a🎉b中語é🦜"'
LIMITS = Limits(first_token_timeout=20.0, inter_token_timeout=20.0, retry_timeout=60.0, max_attempts=4, backoff=0.001)
ENDLESS = Job(chat("Count."), Sampling(seed=1, ignore_eos=True), (Start(0, token_ids([])),))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with llama_server(slots=2, context=LONG) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server: Running) -> AsyncIterator[LlamaServerEngine]:
    async with LlamaServerEngine(NodeSpec(url=server.url)) as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference() -> AsyncIterator[LlamaCppEngine]:
    async with make_engine(capacity=1) as engine:
        yield engine


async def test_the_card_is_that_of_the_servers_file(engine: LlamaServerEngine, reference: LlamaCppEngine) -> None:
    """Card and tokenizer are those of the server's GGUF file; slots and context length are the server's."""
    assert engine.card == msgspec.structs.replace(reference.card, context_length=LONG, weights=engine.card.weights)
    assert engine.artefact == reference.artefact
    assert engine.capacity == 2
    assert set(engine.capabilities.grammars) == {"json_schema", "regex", "lark"}


@pytest.mark.slow
async def test_weights_depend_on_the_file_and_not_on_the_server(engine: LlamaServerEngine, tmp_path: Path) -> None:
    """Another server with the same file, in another folder, has the same fingerprint; another file has another one."""
    model, found = resolve(None, print), []
    for name in (model.name, "other.gguf"):
        (tmp_path / name).symlink_to(model)
        with llama_server(context=SHORT, model=tmp_path / name) as running:
            async with LlamaServerEngine(NodeSpec(url=running.url, tokenizer=str(model))) as other:
                found.append(other.card.weights)
    assert found[0] == engine.card.weights != ""
    assert found[1] not in ("", engine.card.weights)


@pytest.mark.parametrize(
    ("question", "sampling"),
    [
        ("What is the capital of France?", {"max_tokens": 30}),
        ("Write a list of fruits.", {"max_tokens": 20}),
        ("Count to three.", {"max_tokens": 20, "ignore_eos": True}),
        *(("Celebrate!", {"max_tokens": max_tokens, "logit_bias": SPLIT}) for max_tokens in (9, 10, 11)),
        *(
            ("Celebrate!", {"max_tokens": max_tokens, "grammar": Grammar("lark", 'start: "a🎉b中語é🦜"')})
            for max_tokens in (7, 8, 20)
        ),
        ("Break!", {"max_tokens": 7, "logit_bias": {10813: 100.0}}),
    ],
)
async def test_greedy_tokens_equal_those_of_llama_cpp(
    engine: LlamaServerEngine, reference: LlamaCppEngine, question: str, sampling: dict[str, Any]
) -> None:
    """Greedy tokens equal those of the llama.cpp engine, also for split characters, grammars and invalid UTF-8."""
    expected, expected_deltas = await run(reference, chat(question), temperature=0, **sampling)
    tokens, deltas = await run(engine, chat(question), temperature=0, **sampling)
    assert tokens == expected
    assert deltas[-1].finish_reason == expected_deltas[-1].finish_reason


@pytest.mark.parametrize("sampling", [{"max_tokens": 5}, {"max_tokens": 6, "logit_bias": SPLIT}])
async def test_logprobs_equal_those_of_llama_cpp(
    engine: LlamaServerEngine, reference: LlamaCppEngine, sampling: dict[str, Any]
) -> None:
    """Every token has the logprobs of the llama.cpp engine, also one whose id the server omits."""
    prompt = chat("Tell me a story.")
    for width in (0, 3):
        (tokens, expected), (same_tokens, actual) = [
            await run(tested, prompt, temperature=0, logprobs=width, **sampling) for tested in (reference, engine)
        ]
        assert tokens == same_tokens
        for ours, theirs in zip(all_logprobs(expected), all_logprobs(actual), strict=True):
            assert theirs.top_ids == ours.top_ids
            assert [theirs.logprob, *theirs.top_logprobs] == pytest.approx([ours.logprob, *ours.top_logprobs], abs=0.01)


def all_logprobs(deltas: list[Delta]) -> list[TokenLogprobs]:
    assert all(len(delta.logprobs or []) == len(delta.tokens) for delta in deltas)
    return [entry for delta in deltas for entry in delta.logprobs or []]


async def test_a_seed_gives_the_same_answer_again(engine: LlamaServerEngine) -> None:
    """Each seed gives its own repeatable answer, and so does each choice of a job."""
    prompt = chat("Tell me a story.")
    answers = [(await run(engine, prompt, seed=seed, max_tokens=8))[0] for seed in (1, 2, 1, -(2**63))]
    assert answers[0] == answers[2]
    assert len({tuple(answer) for answer in answers}) == 3
    deltas: list[Delta] = []
    starts = tuple(Start(choice, token_ids([])) for choice in range(2))
    await engine.run(Job(prompt, Sampling(seed=1, max_tokens=8), starts), deltas.append)
    first, second = ([t for delta in deltas if delta.choice == choice for t in delta.tokens] for choice in range(2))
    assert first == answers[0] != second


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
async def test_truncation_to_one_token_is_greedy(engine: LlamaServerEngine, sampling: dict[str, Any]) -> None:
    """Truncation to a single token is greedy at any temperature, and the server's own truncation is off."""
    prompt = chat("Tell me a story.")
    greedy, _ = await run(engine, prompt, temperature=0, max_tokens=6)
    assert (await run(engine, prompt, temperature=5, max_tokens=6))[0] != greedy
    assert (await run(engine, prompt, temperature=5, max_tokens=6, **sampling))[0] == greedy


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
async def test_a_huge_penalty_forbids_repetition(engine: LlamaServerEngine, name: str) -> None:
    """A huge penalty forbids repeated tokens."""
    prompt = chat("Say yes yes yes yes yes yes.", "yes yes yes yes yes yes")
    penalty: dict[str, Any] = {name: 1e4}
    tokens, _ = await run(engine, prompt, temperature=0, max_tokens=10, ignore_eos=True, **penalty)
    assert len(set(tokens)) == len(tokens) == 10


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_answer_matches_its_schema(engine: LlamaServerEngine, seed: int) -> None:
    """An answer with a schema parses and ends by itself."""
    pieces = TokenizerArtefact.from_bytes(engine.artefact).pieces
    sampling: dict[str, Any] = {"seed": seed, "max_tokens": 80, "grammar": Grammar("json_schema", PERSON)}
    tokens, deltas = await run(engine, chat("Describe a person called Ann."), **sampling)
    person = json.loads(b"".join(pieces[token] for token in tokens))
    assert person.keys() == {"name", "age"}
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("lark", "start: nothing"),
        Grammar("regex", "(?<=x)a"),
        Grammar("json_schema", '{"type": "string", "pattern": "(?<=x)a"}'),
        Grammar("json_schema", "{"),
    ],
)
async def test_an_invalid_grammar_is_rejected(engine: LlamaServerEngine, grammar: Grammar) -> None:
    """An invalid grammar is rejected, because the server would ignore it."""
    with pytest.raises(InvalidRequest, match="grammar"):
        await run(engine, chat("Hi"), grammar=grammar, max_tokens=1)


async def test_stop_tokens_end_and_are_not_delivered(engine: LlamaServerEngine) -> None:
    """A stop token that the server does not know ends a choice and is not delivered; max_tokens may be 0."""
    prompt = chat("Tell me a story.")
    tokens, _ = await run(engine, prompt, temperature=0, max_tokens=12)
    stopped, deltas = await run(engine, prompt, temperature=0, max_tokens=12, stop_tokens=(tokens[6],))
    assert stopped == tokens[: tokens.index(tokens[6])]
    assert deltas[-1].finish_reason == "stop"
    assert await run(engine, prompt, max_tokens=0) == ([], [Delta(0, [], None, "length")])


async def test_a_full_context_ends_with_length() -> None:
    """A choice ends with "length" when its slot is full; a prompt that fills the slot is rejected."""
    with llama_server(slots=1, context=SHORT) as server:
        async with LlamaServerEngine(NodeSpec(url=server.url)) as engine:
            prompt = token_ids([500] * (SHORT - 3))
            tokens, deltas = await run(engine, prompt, ignore_eos=True)
            assert (len(tokens), deltas[-1].finish_reason) == (3, "length")
            with pytest.raises(ContextLengthExceeded, match=str(SHORT)):
                await run(engine, token_ids([500] * SHORT))


async def test_cached_tokens_are_reported(engine: LlamaServerEngine) -> None:
    """The first token reports how much of the prompt was cached, after keep-alives while the prompt is processed."""
    prompt = chat("What would you say of this, in a few words? " * 6)
    deltas: list[Delta] = []
    for _ in range(2):
        deltas.clear()
        start = Start(0, token_ids([]))
        await engine.run(Job(prompt, Sampling(max_tokens=2, temperature=0), (start,)), deltas.append)
    assert [delta.tokens for delta in deltas][:1] == [[]]
    cached = [delta.cached_tokens for delta in deltas if delta.tokens]
    assert cached == [len(prompt) - 1, 0]


async def test_cancelling_frees_the_slot(engine: LlamaServerEngine, server: Running) -> None:
    """Cancelling a job frees the server's slot."""
    started = asyncio.Event()
    task = asyncio.create_task(engine.run(ENDLESS, lambda delta: started.set() if delta.tokens else None))
    await started.wait()
    async with HttpClient(NodeSpec(url=server.url)) as http:
        assert await busy(http) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(20):
            while await busy(http):
                await asyncio.sleep(0.01)


async def busy(http: HttpClient) -> int:
    return sum(slot["is_processing"] for slot in await http.get("/slots"))


async def test_a_restarted_server_is_described_again() -> None:
    """A killed server raises NodeLost, and is described again after a restart with another context length."""
    hours = count(step=3600.0)
    with llama_server(slots=1, context=SHORT) as first:
        async with LlamaServerEngine(NodeSpec(url=first.url), clock=lambda: next(hours)) as engine:
            card = engine.card
            with pytest.raises(NodeLost):
                await engine.run(ENDLESS, lambda delta: first.process.send_signal(signal.SIGKILL))
            first.process.wait(10)
            with pytest.raises(NodeLost):
                await engine.check()
            with llama_server(slots=2, context=2 * SHORT, port=int(first.url.rpartition(":")[2])):
                await engine.check()
                assert engine.card == msgspec.structs.replace(card, context_length=2 * SHORT)
                assert engine.capacity == 2
                assert len((await run(engine, chat("Hi"), max_tokens=2, ignore_eos=True))[0]) == 2


@pytest.mark.parametrize("sampling", [{"temperature": 0, "logit_bias": SPLIT}, {"seed": 4}])
async def test_an_answer_continues_on_another_server(sampling: dict[str, Any]) -> None:
    """An answer whose server is killed continues on another one and equals the uninterrupted answer."""
    prompt, all_sampling = chat("Tell me a story."), Sampling(max_tokens=18, ignore_eos=True, **sampling)
    with llama_server(slots=1, context=SHORT) as left, llama_server(slots=1, context=SHORT) as right:
        running = {server.url: server for server in (left, right)}
        nodes = [InProcessProtocol(LlamaServerEngine(NodeSpec(url=url)), url) for url in running]
        async with RemoteManager(nodes) as remotes:
            await remotes.ready()
            sessions = SessionManager(remotes, limits=LIMITS)
            async with sessions.session() as session:
                whole = [t async for delta in session.generate(prompt, all_sampling) for t in delta.tokens]
            async with sessions.session() as session:
                tokens: list[int] = []
                async for delta in session.generate(prompt, all_sampling):
                    tokens += delta.tokens
                    if len(tokens) >= 7 and session.ledger is not None:
                        running[session.ledger.peers[0]].process.send_signal(signal.SIGKILL)
                assert session.ledger is not None
                assert len(session.ledger.peers) == 2
    assert tokens == whole
    assert len(tokens) == 18


async def test_a_tokenizer_must_be_available(server: Running) -> None:
    """A tokenizer that is not available raises an error that says what to set."""
    with pytest.raises(SettingsError, match="set `tokenizer`"):
        async with LlamaServerEngine(NodeSpec(url=server.url, tokenizer="/nowhere/model.gguf")):
            raise AssertionError("the engine started without a tokenizer")
