"""Echo engine: deterministic, and as sensitive to all earlier tokens as a model."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.echo import PIECES, EchoEngine, EchoOptions
from subnet.engines.echo.echo_engine import Pace
from subnet.errors import ContextLengthExceeded
from subnet.generation import Delta, Job, Sampling, Start
from subnet.tensors import token_ids

GREEDY = Sampling(temperature=0.0, seed=0)
SEEDED = Sampling(seed=7)


async def answer(
    sampling: Sampling, prompt: list[int] | None = None, delivered: tuple[list[int], ...] = ([],), size: int | None = 40
) -> list[Delta]:
    deltas: list[Delta] = []
    starts = tuple(Start(choice, token_ids(tokens)) for choice, tokens in enumerate(delivered))
    async with EchoEngine(options=EchoOptions(size=size)) as engine:
        await engine.run(Job(token_ids(prompt or list(b"prompt")), sampling, starts), deltas.append)
    return deltas


def tokens(deltas: list[Delta], choice: int = 0) -> list[int]:
    return [token for delta in deltas if delta.choice == choice for token in delta.tokens]


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
async def test_the_same_request_gives_the_same_answer(sampling: Sampling) -> None:
    """Equal prompts and seeds give equal answers, of the configured size."""
    first, second = tokens(await answer(sampling)), tokens(await answer(sampling))
    assert first == second
    assert len(first) == 40


async def test_prompt_seed_and_choice_change_the_answer() -> None:
    """Another prompt, seed or choice gives another answer, but the seed does not affect a greedy one."""
    base = await answer(SEEDED, delivered=([], []))
    assert tokens(base, 0) != tokens(base, 1)
    assert tokens(base) != tokens(await answer(Sampling(seed=8)))
    assert tokens(base) != tokens(await answer(SEEDED, prompt=[1]))
    assert tokens(await answer(GREEDY)) == tokens(await answer(Sampling(temperature=0.0, seed=1)))


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
async def test_exact_resume(sampling: Sampling) -> None:
    """An answer resumed after any number of tokens equals the uninterrupted one."""
    whole = tokens(await answer(sampling))
    for cut in range(len(whole) + 1):
        rest = await answer(sampling, delivered=(whole[:cut],))
        assert whole[:cut] + tokens(rest) == whole
        assert rest[-1].finish_reason == "stop"


async def test_a_greedy_answer_continues_from_its_tokens() -> None:
    """A greedy answer depends on its tokens alone, wherever the prompt ends."""
    whole = tokens(await answer(GREEDY))
    for cut in range(len(whole)):
        rest = await answer(GREEDY, prompt=list(b"prompt") + whole[:cut], size=40 - cut)
        assert whole[:cut] + tokens(rest) == whole


PENALISED = {
    "frequency": Sampling(seed=7, frequency_penalty=1.5),
    "presence": Sampling(seed=7, presence_penalty=1.5),
    "repetition": Sampling(seed=7, repetition_penalty=1.5),
    "bias": Sampling(seed=7, logit_bias=dict.fromkeys(range(257, 280), -2.0)),
}


@pytest.mark.parametrize("name", PENALISED)
async def test_penalties_are_resumed_exactly(name: str) -> None:
    """An answer with penalties or a bias, resumed after any number of tokens, equals the uninterrupted one."""
    sampling = PENALISED[name]
    whole = tokens(await answer(sampling))
    neutral = Sampling(seed=7, frequency_penalty=1e-9)
    assert whole != tokens(await answer(neutral))
    for cut in range(len(whole) + 1):
        assert whole[:cut] + tokens(await answer(sampling, delivered=(whole[:cut],))) == whole


@pytest.mark.parametrize("name", ["frequency", "presence"])
async def test_ignoring_output_counts_changes_the_answer(name: str) -> None:
    """An answer with penalties that continues with its output as part of the prompt differs."""
    sampling = msgspec.structs.replace(PENALISED[name], temperature=0.0)
    whole = tokens(await answer(sampling))
    for cut in range(5, 30):
        rest = await answer(sampling, prompt=list(b"prompt") + whole[:cut], size=40 - cut)
        assert whole[:cut] + tokens(rest) != whole


async def test_frequency_penalty() -> None:
    """The frequency penalty makes a token rarer the more often it has been generated."""
    neutral = Counter(tokens(await answer(Sampling(seed=7, frequency_penalty=1e-9), size=300)))
    penalised = Counter(tokens(await answer(Sampling(seed=7, frequency_penalty=2.0), size=300)))
    assert max(penalised.values()) < max(neutral.values()) / 3


async def test_logit_bias() -> None:
    """A bias of 100 forces any token; a bias of -100 bans one."""
    assert set(tokens(await answer(Sampling(seed=7, logit_bias={65: 100.0})))) == {65}
    plain = tokens(await answer(Sampling(seed=7, logit_bias={65: 0.0}), size=200))
    word = Counter(plain).most_common(1)[0][0]
    assert word not in tokens(await answer(Sampling(seed=7, logit_bias={word: -100.0}), size=200))


async def test_top_p_keeps_likely_tokens() -> None:
    """A low top_p excludes multi-byte characters, which are the least likely."""
    assert min(tokens(await answer(Sampling(seed=7), size=200))) < 256
    assert min(tokens(await answer(Sampling(seed=7, top_p=0.5), size=200))) > 256


async def test_stop_tokens() -> None:
    """A stop token ends the answer and is not delivered, but not before min_tokens."""
    whole = tokens(await answer(SEEDED))
    position = next(at for at in range(10, 40) if whole[at] not in whole[:at])
    deltas = await answer(Sampling(seed=7, stop_tokens=(whole[position],)))
    assert (tokens(deltas), deltas[-1].finish_reason) == (whole[:position], "stop")
    assert (
        len(tokens(await answer(Sampling(seed=7, stop_tokens=(whole[position],), min_tokens=position + 1)))) > position
    )
    assert len(tokens(await answer(Sampling(seed=7, min_tokens=50)))) == 50


@given(st.integers(0, 2**62))
async def test_text_is_valid_utf8(seed: int) -> None:
    """The text of an answer is valid UTF-8, except for a last character that is cut off."""
    data = b"".join(PIECES[token] for token in tokens(await answer(Sampling(seed=seed))))
    assert "\ufffd" not in data.decode("utf-8", "replace").rstrip("\ufffd")


async def test_length_and_logprobs() -> None:
    """Reaching max_tokens ends with "length", and every token has the requested number of logprobs."""
    deltas = await answer(Sampling(seed=1, max_tokens=3, logprobs=2))
    assert [delta.finish_reason for delta in deltas] == [None, None, "length"]
    assert [len(entry.top_ids) for delta in deltas for entry in delta.logprobs or []] == [2, 2, 2]


async def test_a_prompt_longer_than_the_context_is_rejected() -> None:
    """A prompt that exceeds the context length is rejected."""
    async with EchoEngine(options=EchoOptions(context_length=4)) as engine:
        with pytest.raises(ContextLengthExceeded, match="5 tokens"):
            await engine.run(Job(token_ids([1] * 5), GREEDY, (Start(0, token_ids([])),)), lambda delta: None)


@given(st.lists(st.floats(0, 0.3), min_size=50, max_size=50))
def test_pace_does_not_drift(delays: list[float]) -> None:
    """After any delays, the number of steps catches up with the rate."""
    pace, now = Pace(100.0, 0.0), 0.0
    for delay in delays:
        now += max(0.0, pace.delay(now)) + delay / 100
    steps = len(delays)
    while (wait := pace.delay(now)) <= 0:
        steps += 1
    assert now + wait == pytest.approx((steps + 1) / 100)


def test_a_long_stop_is_not_made_up_for() -> None:
    """Steps that are more than a second late are skipped."""
    pace = Pace(100.0, 0.0)
    steps = 0
    while pace.delay(60.0) <= 0:
        steps += 1
    assert steps == 101


async def test_the_end_of_an_answer() -> None:
    """A size ends an answer also if max_tokens is larger, as it is behind gateways, unless ignore_eos is set."""
    for sampling, length, reason in [
        (Sampling(max_tokens=100), 40, "stop"),
        (Sampling(max_tokens=30), 30, "length"),
        (Sampling(max_tokens=40), 40, "length"),
        (Sampling(max_tokens=100, min_tokens=60), 60, "stop"),
        (Sampling(max_tokens=100, ignore_eos=True), 100, "length"),
        (Sampling(max_tokens=100, min_tokens=100, ignore_eos=True), 100, "length"),
    ]:
        deltas = await answer(sampling)
        assert (len(tokens(deltas)), deltas[-1].finish_reason) == (length, reason)


async def test_answers_without_a_size() -> None:
    """Without a size, an answer has max_tokens tokens."""
    assert len(tokens(await answer(Sampling(max_tokens=100), size=None))) == 100
    assert len(tokens(await answer(Sampling(), size=None))) == 64
