"""The echo engine: deterministic, and as sensitive to its past as a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.echo import PIECES, EchoEngine, EchoOptions
from subnet.errors import ContextLengthExceeded
from subnet.generation import Delta, Job, Sampling, Start
from subnet.tensors import token_ids

GREEDY = Sampling(temperature=0.0, seed=0)
SEEDED = Sampling(seed=7)


async def answer(
    sampling: Sampling, prompt: list[int] | None = None, delivered: tuple[list[int], ...] = ([],), size: int = 40
) -> list[Delta]:
    deltas: list[Delta] = []
    starts = tuple(Start(choice, token_ids(tokens)) for choice, tokens in enumerate(delivered))
    async with EchoEngine(options=EchoOptions(size=size)) as engine:
        await engine.run(Job(token_ids(prompt or list(b"prompt")), sampling, starts), deltas.append)
    return deltas


def tokens(deltas: list[Delta], choice: int = 0) -> list[int]:
    return [token for delta in deltas if delta.choice == choice for token in delta.tokens]


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
async def test_same_again(sampling: Sampling) -> None:
    """The same prompt and seed give the same answer, of the size set."""
    first, second = tokens(await answer(sampling)), tokens(await answer(sampling))
    assert first == second
    assert len(first) == 40


async def test_what_changes_the_answer() -> None:
    """Another prompt, seed or choice gives another answer; greedy does not look at the seed."""
    base = await answer(SEEDED, delivered=([], []))
    assert tokens(base, 0) != tokens(base, 1)
    assert tokens(base) != tokens(await answer(Sampling(seed=8)))
    assert tokens(base) != tokens(await answer(SEEDED, prompt=[1]))
    assert tokens(await answer(GREEDY)) == tokens(await answer(Sampling(temperature=0.0, seed=1)))


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
async def test_exact_resume(sampling: Sampling) -> None:
    """Resumed after any number of tokens, the rest is what it would have been."""
    whole = tokens(await answer(sampling))
    for cut in range(len(whole) + 1):
        rest = await answer(sampling, delivered=(whole[:cut],))
        assert whole[:cut] + tokens(rest) == whole
        assert rest[-1].finish_reason == "stop"


async def test_continuing_a_greedy_answer() -> None:
    """Greedy answers depend on the tokens alone, wherever the prompt ends."""
    whole = tokens(await answer(GREEDY))
    rest = tokens(await answer(GREEDY, prompt=list(b"prompt") + whole[:15], size=25))
    assert whole[:15] + rest == whole


@given(st.integers(0, 2**62))
async def test_text_is_whole_characters(seed: int) -> None:
    """Answers are valid UTF-8 whose characters span tokens, but for one that the end cuts."""
    data = b"".join(PIECES[token] for token in tokens(await answer(Sampling(seed=seed))))
    assert "\ufffd" not in data.decode("utf-8", "replace").rstrip("\ufffd")


async def test_length_and_logprobs() -> None:
    """max_tokens ends with "length"; every token has the logprobs asked for."""
    deltas = await answer(Sampling(seed=1, max_tokens=3, logprobs=2))
    assert [delta.finish_reason for delta in deltas] == [None, None, "length"]
    assert [len(entry.top_ids) for delta in deltas for entry in delta.logprobs or []] == [2, 2, 2]


async def test_context() -> None:
    """A prompt beyond the context is refused."""
    async with EchoEngine(options=EchoOptions(context_length=4)) as engine:
        with pytest.raises(ContextLengthExceeded, match="5 tokens"):
            await engine.run(Job(token_ids([1] * 5), GREEDY, (Start(0, token_ids([])),)), lambda delta: None)
