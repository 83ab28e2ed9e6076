"""llama.cpp engine with a real model: sampling, resuming, slots and finish reasons."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from subnet.engines.llama_cpp import LlamaCppEngine, NativeTokenizer
from subnet.errors import ContextLengthExceeded, EngineFailed, InvalidRequest, SettingsError
from subnet.generation import Delta, Grammar, Job, Sampling, Start
from subnet.models.resolve import resolve
from subnet.tensors import token_ids
from tests.real_engine import CONTEXT, PERSON, chat, ids_of, make_engine, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_greedy_answer_is_correct_and_repeatable(engine: LlamaCppEngine, pieces: list[bytes]) -> None:
    """The model answers a question, stops by itself, and repeats the answer."""
    prompt = chat("What is the capital of France?")
    tokens, deltas = await run(engine, prompt, temperature=0, max_tokens=40)
    assert b"Paris" in b"".join(pieces[token] for token in tokens)
    assert deltas[-1].finish_reason == "stop"
    assert (await run(engine, prompt, temperature=0, max_tokens=40))[0] == tokens


async def test_whole_pieces_of_a_prompt_are_reused(engine: LlamaCppEngine) -> None:
    """A conversation's next turn reuses the whole pieces of its last prompt, which does not change the answer."""
    prompt = chat("Tell me a story. " * 30)
    answer, _ = await run(engine, prompt, max_tokens=20)
    following = token_ids([*prompt, *answer, *chat("And then?")])
    async with make_engine(capacity=1) as other:
        expected = await run(other, following, max_tokens=12, logprobs=3)
    tokens, deltas = await run(engine, following, max_tokens=12, logprobs=3)
    assert (tokens, [delta.logprobs for delta in deltas]) == (expected[0], [delta.logprobs for delta in expected[1]])
    assert deltas[0].cached_tokens == len(prompt) // 64 * 64 > 0
    assert not any(delta.cached_tokens for delta in deltas[1:])


async def test_max_tokens_is_exact(engine: LlamaCppEngine) -> None:
    """An answer has exactly max_tokens tokens and ends with "length", also if none are allowed or left."""
    prompt = chat("Tell me a story.")
    tokens, deltas = await run(engine, prompt, temperature=0, max_tokens=5)
    assert (len(tokens), deltas[-1].finish_reason) == (5, "length")
    assert await run(engine, prompt, max_tokens=0) == ([], [Delta(0, [], None, "length")])
    assert (await run(engine, prompt, tokens, max_tokens=5))[0] == []


async def test_stop_tokens_end_and_are_not_delivered(engine: LlamaCppEngine) -> None:
    """A stop token ends a choice and is not delivered, but min_tokens suppresses it."""
    prompt = chat("Tell me a story.")
    tokens, _ = await run(engine, prompt, temperature=0, max_tokens=12)
    stopped, deltas = await run(engine, prompt, temperature=0, max_tokens=12, stop_tokens=(tokens[6],))
    assert stopped == tokens[: tokens.index(tokens[6])]
    assert deltas[-1].finish_reason == "stop"
    longer, _ = await run(engine, prompt, temperature=0, max_tokens=12, stop_tokens=(tokens[6],), min_tokens=12)
    assert len(longer) == 12
    assert tokens[6] not in longer


async def test_the_end_of_generation_can_be_ignored(engine: LlamaCppEngine) -> None:
    """With ignore_eos an answer continues up to max_tokens."""
    tokens, deltas = await run(
        engine, chat("What is the capital of France?"), temperature=0, max_tokens=20, ignore_eos=True
    )
    assert (len(tokens), deltas[-1].finish_reason) == (20, "length")


async def test_concurrent_jobs_equal_separate_ones(engine: LlamaCppEngine) -> None:
    """Jobs that run concurrently, with prompts processed in pieces, give the same tokens as separately."""
    questions = ["Tell me a story. " * 12, "Hi", "Write a list of fruits.", "What is a tensor? " * 5]
    prompts = [chat(question) for question in questions]
    together = await asyncio.gather(*(run(engine, prompt, seed=3, max_tokens=16) for prompt in prompts))
    async with make_engine(capacity=1, prompt_cache=False) as alone:
        for prompt, (tokens, _) in zip(prompts, together, strict=True):
            assert (await run(alone, prompt, seed=3, max_tokens=16))[0] == tokens


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
async def test_truncation_to_one_token_is_greedy(engine: LlamaCppEngine, sampling: dict[str, Any]) -> None:
    """Truncation to a single token is greedy at any temperature."""
    prompt = chat("Tell me a story.")
    greedy, _ = await run(engine, prompt, temperature=0, max_tokens=8)
    assert (await run(engine, prompt, temperature=5, max_tokens=8))[0] != greedy
    assert (await run(engine, prompt, temperature=5, max_tokens=8, **sampling))[0] == greedy


async def test_typical_p_zero_is_deterministic(engine: LlamaCppEngine) -> None:
    """With typical_p 0 only the most typical token is left, whatever the seed."""
    prompt = chat("Tell me a story.")
    free, typical = [
        {tuple((await run(engine, prompt, seed=seed, max_tokens=8, typical_p=typical_p))[0]) for seed in range(3)}
        for typical_p in (1.0, 0.0)
    ]
    assert (len(free), len(typical)) == (3, 1)


@pytest.mark.parametrize(
    ("penalty", "of_prompt"),
    [({"frequency_penalty": 1e4}, False), ({"presence_penalty": 1e4}, False), ({"repetition_penalty": 1e4}, True)],
)
async def test_a_huge_penalty_forbids_repetition(
    engine: LlamaCppEngine, penalty: dict[str, Any], of_prompt: bool
) -> None:
    """A huge penalty forbids repeated tokens; repetition_penalty forbids those of the prompt, too."""
    prompt = ids_of("one two three one two three one two three one")
    free, _ = await run(engine, prompt, temperature=0, max_tokens=12)
    assert len(set(free)) < len(free)
    tokens, _ = await run(engine, prompt, temperature=0, max_tokens=12, **penalty)
    assert len(set(tokens)) == len(tokens)
    assert set(tokens).isdisjoint(prompt.tolist()) == of_prompt


async def test_a_large_bias_forces_a_token(engine: LlamaCppEngine) -> None:
    """A bias that outweighs all logits forces its token."""
    assert (await run(engine, chat("Hi"), seed=3, max_tokens=4, logit_bias={500: 100.0}))[0] == [500] * 4


SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 1, "seed": 11},
    "truncated": {"temperature": 1.3, "seed": -7, "top_p": 0.9, "top_k": 50, "min_p": 0.02, "typical_p": 0.95},
    "penalised": {"seed": 5, "frequency_penalty": 0.8, "presence_penalty": 0.4, "repetition_penalty": 1.2},
    "schema": {"seed": 9, "grammar": Grammar("json_schema", PERSON)},
}


@pytest.mark.parametrize("name", SAMPLINGS)
async def test_a_resumed_answer_equals_the_uninterrupted_one(engine: LlamaCppEngine, name: str) -> None:
    """An answer resumed at any token, on the same or a new engine, equals the uninterrupted one."""
    prompt, sampling = chat("Describe a person called Ann."), {"max_tokens": 24} | SAMPLINGS[name]
    whole, deltas = await run(engine, prompt, **sampling)
    async with make_engine(capacity=1) as other:
        for cut in sorted({1, 2, 3, len(whole) // 2, len(whole) - 1}):
            for resumed_by in (engine, other):
                rest, last = await run(resumed_by, prompt, whole[:cut], **sampling)
                assert rest == whole[cut:]
                assert last[-1].finish_reason == deltas[-1].finish_reason


async def test_every_seed_gives_its_own_answer(engine: LlamaCppEngine) -> None:
    """Every 64-bit seed, also a negative one, gives its own repeatable answer."""
    prompt, seeds = chat("Tell me a story."), [-(2**63), -1, 0, 1, 2**63 - 1]
    answers = [[(await run(engine, prompt, seed=seed, max_tokens=8))[0] for seed in seeds] for _ in range(2)]
    assert answers[0] == answers[1]
    assert len({tuple(answer) for answer in answers[0]}) == len(seeds)


async def test_choices_of_a_job_share_the_prompt(engine: LlamaCppEngine) -> None:
    """The choices of a job differ, each equals its separate run, and the prompt is processed once."""
    prompt = chat("Write a poem about rivers, hills and the sea.")
    deltas: list[Delta] = []
    starts = tuple(Start(choice, token_ids([])) for choice in range(3))
    await engine.run(Job(prompt, Sampling(seed=4, max_tokens=12), starts), deltas.append)
    answers = [[t for delta in deltas if delta.choice == choice for t in delta.tokens] for choice in range(3)]
    assert len({tuple(answer) for answer in answers}) == 3
    first = {delta.choice: delta for delta in reversed(deltas) if delta.tokens}
    assert len({first[choice].cached_tokens for choice in range(3)}) == 1
    assert first[0].cached_tokens < len(prompt) // 2
    alone: list[Delta] = []
    await engine.run(Job(prompt, Sampling(seed=4, max_tokens=12), starts[2:]), alone.append)
    assert [token for delta in alone for token in delta.tokens] == answers[2]


async def test_logprobs_ignore_sampling_parameters(engine: LlamaCppEngine) -> None:
    """Greedy tokens head their logprobs, which are at most 0, sorted, and not affected by a bias."""
    prompt = chat("Tell me a story.")
    tokens, deltas = await run(engine, prompt, temperature=0, max_tokens=6, logprobs=4)
    logprobs_of_tokens = [logprobs for delta in deltas for logprobs in delta.logprobs or []]
    assert [logprobs.top_ids[0] for logprobs in logprobs_of_tokens] == tokens
    assert all(logprobs.logprob == logprobs.top_logprobs[0] <= 0 for logprobs in logprobs_of_tokens)
    assert all(
        sorted(logprobs.top_logprobs, reverse=True) == list(logprobs.top_logprobs) for logprobs in logprobs_of_tokens
    )
    biased, deltas = await run(engine, prompt, temperature=0, max_tokens=1, logprobs=4, logit_bias={tokens[0]: -100})
    assert biased != tokens[:1]
    assert (deltas[0].logprobs or [])[0].top_ids == logprobs_of_tokens[0].top_ids


async def test_more_choices_than_slots_wait(engine: LlamaCppEngine) -> None:
    """Jobs beyond the capacity wait for a slot instead of failing."""
    prompt = chat("Hi")
    answers = await asyncio.gather(*(run(engine, prompt, seed=seed, max_tokens=3) for seed in range(6)))
    assert all(deltas[-1].finish_reason for _, deltas in answers)


async def test_cancelling_frees_the_slots(engine: LlamaCppEngine) -> None:
    """Cancelling jobs frees their slots for the next job and stops their deltas."""
    deltas: list[Delta] = []
    started = asyncio.Event()

    def emit(delta: Delta) -> None:
        deltas.append(delta)
        started.set()

    start = (Start(0, token_ids([])),)
    job = Job(chat("Count."), Sampling(seed=1, ignore_eos=True), start)
    tasks = [asyncio.create_task(engine.run(job, emit)) for _ in range(engine.capacity)]
    await started.wait()
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(result, asyncio.CancelledError) for result in await asyncio.gather(*tasks, return_exceptions=True)
    )
    count = len(deltas)
    assert len((await run(engine, chat("Hi"), max_tokens=4, ignore_eos=True))[0]) == 4
    assert len(deltas) == count


async def test_an_error_in_emit_ends_only_its_own_run(engine: LlamaCppEngine) -> None:
    """An exception in emit is raised by its own run and does not affect others."""

    def emit(delta: Delta) -> None:
        raise LookupError("no receiver")

    job = Job(chat("Hi"), Sampling(seed=1), (Start(0, token_ids([])),))
    other = asyncio.create_task(run(engine, chat("Count."), max_tokens=6, ignore_eos=True))
    with pytest.raises(LookupError):
        await engine.run(job, emit)
    assert len((await other)[0]) == 6


async def test_a_full_context_ends_with_length(engine: LlamaCppEngine) -> None:
    """A choice ends with "length" when its context is full; a job without room for a token is rejected."""
    prompt = token_ids([500] * (CONTEXT - 3))
    tokens, deltas = await run(engine, prompt, ignore_eos=True)
    assert (len(tokens), deltas[-1].finish_reason) == (3, "length")
    with pytest.raises(ContextLengthExceeded, match=rf"{CONTEXT} tokens\. However, the request has {CONTEXT} tokens"):
        await run(engine, prompt, tokens)


@pytest.mark.parametrize(("prompt", "bias"), [([], {}), ([49152], {}), ([5], {49152: 1.0})])
async def test_unknown_token_ids_are_rejected(
    engine: LlamaCppEngine, prompt: list[int], bias: dict[int, float]
) -> None:
    """An empty prompt and token ids beyond the vocabulary raise InvalidRequest."""
    with pytest.raises(InvalidRequest):
        await run(engine, token_ids(prompt), logit_bias=bias)


async def test_the_prompt_cache_can_be_disabled() -> None:
    """Without the prompt cache, nothing of an earlier job is reused."""
    async with make_engine(capacity=1, prompt_cache=False) as engine:
        for _ in range(2):
            _, deltas = await run(engine, chat("Hi"), max_tokens=2)
            assert deltas[0].cached_tokens == 0


async def test_leaving_the_engine_fails_running_jobs() -> None:
    """A job that is running when the engine is left raises EngineFailed."""
    async with make_engine(capacity=1) as engine:
        started = asyncio.Event()
        job = Job(chat("Count."), Sampling(seed=1, ignore_eos=True), (Start(0, token_ids([])),))
        task = asyncio.create_task(engine.run(job, lambda _: started.set()))
        await started.wait()
    with pytest.raises(EngineFailed):
        await task


async def test_a_truncated_file_is_rejected(tmp_path: Path) -> None:
    """A truncated model raises a SettingsError with llama.cpp's reason in one line."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(resolve(None, print).read_bytes()[:5_000_000])
    with pytest.raises(SettingsError, match="cannot load") as caught:
        async with LlamaCppEngine(model_path=path):
            raise AssertionError("it loaded")
    assert "\n" not in caught.value.message


async def test_random_answers_resume_at_random_tokens(engine: LlamaCppEngine) -> None:
    """Answers to random prompts resume at random tokens, whatever is in the cache."""
    randomness = random.Random(3)
    for _ in range(6):
        prompt = token_ids([randomness.randrange(20, 40_000) for _ in range(randomness.randrange(1, 120))])
        whole, _ = await run(engine, prompt, seed=8, max_tokens=10, ignore_eos=True)
        cut = randomness.randrange(1, 10)
        assert (await run(engine, prompt, whole[:cut], seed=8, max_tokens=10, ignore_eos=True))[0] == whole[cut:]


async def test_stop_tokens_end_generation_in_llama_cpp(engine: LlamaCppEngine) -> None:
    """Every stop token of the card also ends generation in llama.cpp."""
    with NativeTokenizer(resolve(None, print)) as native:
        assert set(engine.card.stop_tokens) <= native.end_tokens
