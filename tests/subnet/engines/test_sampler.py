"""Token sampling: truncation, penalties, bias, seeds and logprobs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from subnet.engines.sampling.sampler import Sampler, token_logprobs
from subnet.engines.sampling.truncation import truncate
from subnet.errors import EngineFailed
from subnet.generation import Sampling

Array = NDArray[np.float32]
# Multiples of a quarter: many ties, and sums that come out the same in any order.
logit_lists = st.lists(st.integers(-40, 40).map(lambda value: value / 4), min_size=1, max_size=600)


def sampler(sampling: Sampling, size: int, prompt: list[int] | None = None, output: list[int] | None = None) -> Sampler:
    return Sampler(sampling, 0, prompt or [], output or [], [0], size)


def smallest_prefix(order: list[int], weights: list[float], share: float) -> list[int]:
    """Return the shortest prefix of `order` that has `share` of its total weight; at least one token."""
    goal = share * math.fsum(weights[token] for token in order)
    selected: list[int] = []
    while math.fsum(weights[token] for token in selected) < goal * (1 - 1e-12) or not selected:
        selected.append(order[len(selected)])
    return selected


def slow_truncate(weights: list[float], sampling: Sampling) -> list[int]:
    """Apply top_k, top_p and min_p by sorting all tokens."""
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        order = smallest_prefix(order, weights, sampling.top_p)
    return sorted(token for token in order if weights[token] >= np.float32(sampling.min_p))


@given(
    st.lists(st.integers(0, 64).map(lambda value: value / 64), min_size=1, max_size=300),
    st.integers(0, 20),
    st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.1, 0.0]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_truncation_equals_sorting(weights: list[float], top_k: int, top_p: float, min_p: float) -> None:
    """Truncation by partial selection keeps the same tokens as sorting all of them, ties included."""
    weights = [*weights, 1.0]
    sampling = Sampling(top_k=top_k, top_p=top_p, min_p=min_p)
    ids = truncate(np.array(weights, np.float32), sampling)
    assert (list(range(len(weights))) if ids is None else ids.tolist()) == slow_truncate(weights, sampling)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=900), st.sampled_from([0.0, 0.2, 0.5, 0.9, 0.99]))
def test_typical_sampling_equals_its_definition(weights: list[int], typical_p: float) -> None:
    """Typical sampling keeps the tokens whose surprisal is nearest to the entropy, until they reach typical_p."""
    array = np.array([*weights, 100], np.float32) / np.float32(100)
    shares = array / array.sum(dtype=np.float64)
    entropy = -math.fsum(share * math.log(share) for share in shares if share)
    ids = truncate(array, Sampling(typical_p=typical_p))
    assert ids is not None
    selected, mass = set(ids.tolist()), shares[ids].sum()
    distances = [abs(-math.log(share) - entropy) if share else math.inf for share in shares]
    farthest = max(distances[token] for token in selected)
    assert all(token in selected for token, distance in enumerate(distances) if distance < farthest - 1e-9)
    assert mass >= typical_p - 1e-9
    smallest = min(shares[token] for token in selected if distances[token] > farthest - 1e-9)
    assert len(selected) == 1 or mass - smallest < typical_p + 1e-9


def test_typical_sampling_can_exclude_the_likeliest_token() -> None:
    """Unlike top_p, typical sampling may exclude the likeliest token, here one among many equally rare ones."""
    logits = np.zeros(1000, np.float32)
    logits[7] = math.log(500)
    assert {sampler(Sampling(seed=seed, top_p=0.3), 1000).draw(logits) for seed in range(20)} == {7}
    assert 7 not in {sampler(Sampling(seed=seed, typical_p=0.3), 1000).draw(logits) for seed in range(20)}


@given(logit_lists, st.integers(-(2**63), 2**63 - 1))
def test_a_draw_depends_on_its_position_only(logits: list[float], seed: int) -> None:
    """A sampler that starts at a position draws the same token as one that reached it step by step."""
    array, sampling = np.array(logits, np.float32), Sampling(seed=seed, frequency_penalty=0.5, repetition_penalty=1.2)
    stepped, output = sampler(sampling, len(array), [0]), list[int]()
    for _ in range(5):
        token = stepped.draw(array)
        assert token is not None
        assert token == sampler(sampling, len(array), [0], output).draw(array)
        stepped.append(token)
        output.append(token)


@given(logit_lists)
def test_temperature_zero_is_greedy(logits: list[float]) -> None:
    """Temperature 0 selects the highest logit, and the lowest id among equals."""
    assert sampler(Sampling(temperature=0), len(logits)).draw(np.array(logits, np.float32)) == logits.index(max(logits))


def test_draws_follow_the_distribution() -> None:
    """Over many seeds, tokens are drawn with their softmax probability, in every block of the vocabulary."""
    logits = np.full(1000, -30, np.float32)
    expected = {3: 0.5, 255: 0.2, 256: 0.2, 999: 0.1}
    for token, share in expected.items():
        logits[token] = math.log(share)
    drawn = [sampler(Sampling(seed=seed), 1000).draw(logits) for seed in range(4000)]
    for token, share in expected.items():
        assert drawn.count(token) / 4000 == pytest.approx(share, abs=0.03)


def test_choices_draw_from_different_streams() -> None:
    """The choices of a job draw from different random streams."""
    logits = np.zeros(50_000, np.float32)
    assert len({Sampler(Sampling(seed=1), choice, [], [], [0], 50_000).draw(logits) for choice in range(8)}) == 8


def test_penalties_are_those_of_openai() -> None:
    """Frequency and presence penalties count the output only, the repetition penalty the prompt, too."""
    logits = np.array([0.0, 4.0, 4.0, 4.0], np.float32)
    sampling = Sampling(temperature=0, frequency_penalty=0.5, presence_penalty=0.25)
    assert sampler(sampling, 4, prompt=[1], output=[2, 2]).draw(logits) == 1
    assert sampler(sampling, 4, output=[1, 1, 2, 3]).draw(logits) == 2
    assert sampler(Sampling(temperature=0, repetition_penalty=1.1), 4, prompt=[1], output=[2]).draw(logits) == 3


def test_end_tokens_can_be_suppressed() -> None:
    """ignore_eos suppresses end tokens, and min_tokens suppresses end and stop tokens."""
    logits = np.array([9.0, 1.0, 5.0], np.float32)
    assert sampler(Sampling(temperature=0), 3).draw(logits) == 0
    assert sampler(Sampling(temperature=0, ignore_eos=True), 3).draw(logits) == 2
    suppressing = Sampling(temperature=0, min_tokens=1, stop_tokens=(2,))
    assert sampler(suppressing, 3).draw(logits) == 1
    assert sampler(suppressing, 3, output=[1]).draw(logits) == 0


def test_bias_and_mask() -> None:
    """A logit bias makes a token more likely; a masked token is never drawn."""
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    assert sampler(Sampling(temperature=0, logit_bias={1: 5}), 3).draw(logits) == 1
    assert sampler(Sampling(seed=1), 3).draw(logits, np.array([True, False, False])) == 0
    assert sampler(Sampling(seed=1), 3).draw(logits, np.zeros(3, np.bool_)) is None


def test_nan_logits_fail() -> None:
    """NaN logits raise EngineFailed."""
    with pytest.raises(EngineFailed):
        sampler(Sampling(seed=1), 2).draw(np.array([1.0, np.nan], np.float32))


@given(logit_lists, st.integers(0, 20), st.data())
def test_logprobs_are_log_softmax(logits: list[float], width: int, data: st.DataObject) -> None:
    """Logprobs of the token and of the likeliest tokens are the log-softmax of the logits."""
    token = data.draw(st.integers(0, len(logits) - 1))
    logprobs = token_logprobs(np.array(logits, np.float32), token, width)
    norm = math.log(math.fsum(math.exp(value) for value in logits))
    likeliest = sorted(range(len(logits)), key=lambda candidate: (-logits[candidate], candidate))[:width]
    assert logprobs.logprob == pytest.approx(logits[token] - norm, abs=1e-5)
    assert list(logprobs.top_ids) == likeliest
    assert logprobs.top_logprobs == pytest.approx([logits[candidate] - norm for candidate in likeliest], abs=1e-5)


def test_stop_tokens_outside_the_vocabulary() -> None:
    """A stop token that the model cannot produce has no effect, also while stop tokens are excluded."""
    sampling = Sampling(temperature=0, min_tokens=2, stop_tokens=(1, 4, 10**9))
    drawn = sampler(sampling, 4)
    assert drawn.draw(np.array([0, 9, 5, 0], np.float32)) == 2


def test_logprobs_are_finite() -> None:
    """The logprob of an excluded token is the number that stands for minus infinity."""
    entry = token_logprobs(np.array([0, -np.inf], np.float32), 1, 2)
    assert (entry.logprob, entry.top_logprobs) == (-9999.0, (0.0, -9999.0))
