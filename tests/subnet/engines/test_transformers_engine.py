"""transformers engine with tiny models: sampling, resuming, slots and finish reasons."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from subnet.engines.transformers import TransformersEngine
from subnet.errors import ContextLengthExceeded, EngineFailed, InvalidRequest
from subnet.generation import Delta, Grammar, Job, Sampling, Start
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds, token_ids
from tests.real_engine import run
from tests.tiny_model import ARCHITECTURES, CONTEXT, VOCABULARY, tiny_model

torch = pytest.importorskip("torch", reason="the extra `transformers` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = token_ids([0, 50, 60, 70, 80, 90, 100, 61, 51])
LONG = token_ids([0, *random.Random(5).choices(range(2, 330), k=90)])


def make_engine(folder: Path, **settings: Any) -> TransformersEngine:
    return TransformersEngine(folder, threads=1, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    async with make_engine(folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def pieces(engine: TransformersEngine) -> list[bytes]:
    return TokenizerArtefact.from_bytes(engine.artefact).pieces


def reference_model(folder: Path) -> Any:
    """Return the model as loaded by the package itself."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def reference_tokens(model: Any, prompt: TokenIds, count: int) -> list[int]:
    """Return the tokens of the package's own greedy generation, without the end token."""
    input_ids = torch.tensor([prompt.tolist()])
    generated: list[int] = model.generate(input_ids, do_sample=False, max_new_tokens=count)[0, len(prompt) :].tolist()
    return generated[:-1] if generated[-1] == 1 else generated


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_greedy_output_equals_the_packages(tmp_path: Path, architecture: str) -> None:
    """Greedy output equals the package's own, for prompts of one or several pieces and from the prompt cache."""
    model = reference_model(tiny_model(tmp_path, architecture))
    async with make_engine(tmp_path) as engine:
        for prompt in (PROMPT[:1], LONG, LONG, LONG[:50]):
            tokens, _ = await run(engine, prompt, temperature=0, max_tokens=24)
            assert tokens == reference_tokens(model, prompt, 24)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_answers_of_every_architecture_resume(tmp_path: Path, architecture: str) -> None:
    """An answer of any model architecture, resumed at any token, equals the uninterrupted one."""
    async with make_engine(tiny_model(tmp_path, architecture)) as engine:
        whole, _ = await run(engine, LONG, seed=3, max_tokens=16, ignore_eos=True)
        for cut in range(1, 16):
            rest, _ = await run(engine, LONG, whole[:cut], seed=3, max_tokens=16, ignore_eos=True)
            assert rest == whole[cut:]


CAT = {"properties": {"cat": {"enum": ["sat", "mat"]}}, "required": ["cat"]}
SCHEMA = json.dumps({"type": "object", "additionalProperties": False} | CAT)
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "truncated": {"temperature": 1.3, "seed": -7, "top_p": 0.9, "top_k": 50, "min_p": 0.02, "typical_p": 0.95},
    "penalised": {"seed": 5, "frequency_penalty": 0.8, "presence_penalty": 0.4, "repetition_penalty": 1.2},
    "schema": {"seed": 9, "grammar": Grammar("json_schema", SCHEMA)},
}


@pytest.mark.parametrize("name", SAMPLINGS)
async def test_a_resumed_answer_equals_the_uninterrupted_one(
    engine: TransformersEngine, folder: Path, name: str
) -> None:
    """An answer with penalties or a grammar, resumed on the same or a new engine, equals the uninterrupted one."""
    sampling = {"max_tokens": 24} | SAMPLINGS[name]
    whole, deltas = await run(engine, PROMPT, **sampling)
    async with make_engine(folder, capacity=1, prompt_cache=False) as other:
        for cut in range(1, len(whole)):
            for resumed_by in (engine, other):
                rest, last = await run(resumed_by, PROMPT, whole[:cut], **sampling)
                assert rest == whole[cut:]
                assert last[-1].finish_reason == deltas[-1].finish_reason


async def test_logprobs_are_log_softmax(engine: TransformersEngine, folder: Path) -> None:
    """Logprobs are the log-softmax of the model's logits, padding included, before temperature and bias."""
    sampling: dict[str, Any] = {"seed": 2, "temperature": 1.5, "logit_bias": {40: 2.0}}
    tokens, deltas = await run(engine, PROMPT, max_tokens=12, logprobs=5, ignore_eos=True, **sampling)
    logprobs_of_tokens = [logprobs for delta in deltas for logprobs in delta.logprobs or []]
    with torch.no_grad():
        logits = reference_model(folder)(torch.tensor([[*PROMPT.tolist(), *tokens]])).logits[0, len(PROMPT) - 1 : -1]
    for token, logprobs, row in zip(tokens, logprobs_of_tokens, torch.log_softmax(logits.float(), -1), strict=True):
        best = torch.topk(row, 5)
        assert logprobs.logprob == pytest.approx(row[token].item(), abs=1e-4)
        assert list(logprobs.top_ids) == best.indices.tolist()
        assert logprobs.top_logprobs == pytest.approx(best.values.tolist(), abs=1e-4)


async def test_concurrent_jobs_equal_separate_ones(engine: TransformersEngine, folder: Path) -> None:
    """More jobs than slots, run concurrently, give the same tokens as separately."""
    prompts = [LONG[:size] for size in (91, 1, 40, 7, 63, 20)]
    together = await asyncio.gather(*(run(engine, prompt, seed=3, max_tokens=16) for prompt in prompts))
    async with make_engine(folder, capacity=1, prompt_cache=False) as alone:
        for prompt, (tokens, _) in zip(prompts, together, strict=True):
            assert (await run(alone, prompt, seed=3, max_tokens=16))[0] == tokens


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_choices_of_a_job_are_independent(tmp_path: Path, architecture: str) -> None:
    """The choices of a job differ, and each equals its separate run."""
    starts = tuple(Start(choice, token_ids([])) for choice in range(3))
    sampling = Sampling(seed=4, max_tokens=12, ignore_eos=True)
    deltas: list[Delta] = []
    alone: list[Delta] = []
    async with make_engine(tiny_model(tmp_path, architecture)) as engine:
        await engine.run(Job(LONG, sampling, starts), deltas.append)
        await engine.run(Job(LONG, sampling, starts[2:]), alone.append)
    answers = [[t for delta in deltas if delta.choice == choice for t in delta.tokens] for choice in range(3)]
    assert len({tuple(answer) for answer in answers}) == 3
    assert [token for delta in alone for token in delta.tokens] == answers[2]


async def test_cancelling_frees_the_slots(engine: TransformersEngine) -> None:
    """Cancelling jobs frees their slots for the next job and stops their deltas."""
    deltas: list[Delta] = []
    started = asyncio.Event()

    def emit(delta: Delta) -> None:
        deltas.append(delta)
        started.set()

    job = Job(PROMPT, Sampling(seed=1, ignore_eos=True), (Start(0, token_ids([])),))
    tasks = [asyncio.create_task(engine.run(job, emit)) for _ in range(engine.capacity)]
    await started.wait()
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(result, asyncio.CancelledError) for result in await asyncio.gather(*tasks, return_exceptions=True)
    )
    count = len(deltas)
    assert len((await run(engine, PROMPT, max_tokens=4, ignore_eos=True))[0]) == 4
    assert len(deltas) == count


async def test_finish_reasons(engine: TransformersEngine) -> None:
    """max_tokens is exact; stop and end tokens are not delivered, and min_tokens or ignore_eos suppress them."""
    free, deltas = await run(engine, PROMPT, temperature=0, max_tokens=12, ignore_eos=True)
    assert (len(free), deltas[-1].finish_reason) == (12, "length")
    assert await run(engine, PROMPT, max_tokens=0) == ([], [Delta(0, [], None, "length")])
    stopped, deltas = await run(engine, PROMPT, temperature=0, max_tokens=12, stop_tokens=(free[6],))
    assert (stopped, deltas[-1].finish_reason) == (free[: free.index(free[6])], "stop")
    suppressed, _ = await run(engine, PROMPT, temperature=0, max_tokens=12, stop_tokens=(free[6],), min_tokens=12)
    assert free[6] not in suppressed
    ended, deltas = await run(engine, PROMPT, seed=1, logit_bias={1: 100.0})
    assert (ended, deltas[-1].finish_reason) == ([], "stop")
    assert 1 not in (await run(engine, PROMPT, seed=1, logit_bias={1: 100.0}, ignore_eos=True, max_tokens=4))[0]


async def test_a_full_context_ends_with_length(engine: TransformersEngine) -> None:
    """A choice ends with "length" when its context is full; a job without room for a token is rejected."""
    prompt = token_ids([50] * (CONTEXT - 3))
    tokens, deltas = await run(engine, prompt, ignore_eos=True)
    assert (len(tokens), deltas[-1].finish_reason) == (3, "length")
    with pytest.raises(ContextLengthExceeded, match=rf"{CONTEXT} tokens\. However, the request has {CONTEXT} tokens"):
        await run(engine, prompt, tokens)


@pytest.mark.parametrize(("prompt", "bias"), [([], {}), ([VOCABULARY], {}), ([5], {VOCABULARY: 1.0})])
async def test_unknown_token_ids_are_rejected(
    engine: TransformersEngine, prompt: list[int], bias: dict[int, float]
) -> None:
    """An empty prompt and token ids beyond the vocabulary raise InvalidRequest."""
    with pytest.raises(InvalidRequest):
        await run(engine, token_ids(prompt), logit_bias=bias)


@pytest.mark.parametrize("kind", ["json_schema", "regex", "lark"])
async def test_output_matches_its_grammar(engine: TransformersEngine, pieces: list[bytes], kind: Any) -> None:
    """Even the output of an untrained model matches its grammar and ends."""
    text = {"json_schema": SCHEMA, "regex": r"\{\"cat\": \"(sat|mat)\"\}", "lark": 'start: "{\\"cat\\": \\"sat\\"}"'}
    for seed in range(4):
        tokens, deltas = await run(engine, PROMPT, seed=seed, max_tokens=60, grammar=Grammar(kind, text[kind]))
        assert deltas[-1].finish_reason == "stop"
        assert json.loads(b"".join(pieces[token] for token in tokens))["cat"] in ("sat", "mat")


async def test_a_model_without_end_tokens_supports_no_grammars(tmp_path: Path) -> None:
    """A model without end tokens declares no grammars and answers up to max_tokens."""
    tiny_model(tmp_path, eos_token_id=None)
    (tmp_path / "tokenizer_config.json").unlink()
    async with make_engine(tmp_path) as engine:
        assert (engine.card.stop_tokens, engine.capabilities.grammars) == ((), ())
        assert len((await run(engine, PROMPT, seed=1, max_tokens=30))[0]) == 30


async def test_the_prompt_cache_is_used(engine: TransformersEngine, folder: Path) -> None:
    """All but one token of a repeated prompt are reused, unless the prompt cache is disabled."""
    answers = [await run(engine, LONG, seed=6, max_tokens=8, ignore_eos=True) for _ in range(2)]
    assert answers[0][0] == answers[1][0]
    assert answers[1][1][0].cached_tokens == 64
    async with make_engine(folder, capacity=1, prompt_cache=False) as other:
        for _ in range(2):
            tokens, deltas = await run(other, LONG, seed=6, max_tokens=8, ignore_eos=True)
            assert (tokens, deltas[0].cached_tokens) == (answers[0][0], 0)


async def test_a_sliding_window_is_not_reused(tmp_path: Path) -> None:
    """A prompt whose sliding window has moved on is processed again."""
    async with make_engine(tiny_model(tmp_path, "mistral"), capacity=1) as engine:
        first, _ = await run(engine, LONG, seed=6, max_tokens=8)
        again, deltas = await run(engine, LONG, seed=6, max_tokens=8)
    assert (again, deltas[0].cached_tokens) == (first, 0)


async def test_leaving_the_engine_fails_jobs(folder: Path) -> None:
    """A job that is running when the engine is left raises EngineFailed, and so does a later one."""
    async with make_engine(folder, capacity=1) as engine:
        started = asyncio.Event()
        job = Job(PROMPT, Sampling(seed=1, ignore_eos=True), (Start(0, token_ids([])),))
        task = asyncio.create_task(engine.run(job, lambda _: started.set()))
        await started.wait()
    for job_result in (task, engine.run(job, print)):
        with pytest.raises(EngineFailed):
            await job_result
