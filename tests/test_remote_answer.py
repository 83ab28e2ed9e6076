"""Where an answer of a server elsewhere ends, and what of it is told."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from subnet.engines.remote.choice_output import Answer
from subnet.errors import WireError
from subnet.generation import Delta, Sampling, TokenLogprobs

END, STOP = 9, 8
LISTS = st.lists(st.integers(0, 9), max_size=10)


def answer(most: int = 100, **sampling: Any) -> tuple[Answer, list[Delta]]:
    deltas: list[Delta] = []
    return Answer(2, Sampling(**sampling), [END], most, deltas.append), deltas


@example([0, 0, END], {0, 1, 2, 3}, 2)
@given(LISTS, st.sets(st.integers(0, 10)), st.integers(1, 12))
def test_any_pieces_end_at_the_same_place(tokens: list[int], cuts: set[int], most: int) -> None:
    """Before the first end or stop token, or at the limit: once, whatever comes after it."""
    whole, expected = answer(most, stop_tokens=(STOP,))
    whole.add(tokens, reason="length")
    pieces, deltas = answer(most, stop_tokens=(STOP,))
    for start, end in pairwise(sorted({0, *(cut for cut in cuts if cut < len(tokens)), len(tokens)})):
        pieces.add(tokens[start:end])
    pieces.add([], reason="length")
    assert pieces.tokens == whole.tokens == [token for delta in deltas for token in delta.tokens]
    assert [delta.finish_reason for delta in deltas][-1] == expected[-1].finish_reason
    assert sum(delta.finish_reason is not None for delta in deltas) == 1
    assert not {END, STOP} & set(pieces.tokens)
    assert len(pieces.tokens) <= most


def test_the_end_token_may_be_ignored() -> None:
    """But a stop token not."""
    ignoring, deltas = answer(ignore_eos=True, stop_tokens=(STOP,))
    ignoring.add([1, END, 2, STOP, 3])
    assert deltas == [Delta(2, [1, END, 2], None, "stop")]


def test_logprobs_are_cut_with_their_tokens() -> None:
    """And there are none where none are wanted."""
    scores = [TokenLogprobs(-1.0), TokenLogprobs(-2.0), TokenLogprobs(-3.0)]
    scored, deltas = answer(logprobs=0)
    scored.add([1, 2, END], scores)
    assert deltas[0].logprobs == scores[:2]
    plain, deltas = answer()
    plain.add([1], scores[:1])
    assert deltas[0].logprobs is None


def test_the_limit_is_exact() -> None:
    """With the last token comes the reason; a token that ends the answer there is a stop still."""
    limited, deltas = answer(most=2)
    limited.add([1])
    limited.add([2, 3])
    assert deltas == [Delta(2, [1]), Delta(2, [2], None, "length")]
    stopped, deltas = answer(most=2)
    stopped.add([1, 2], reason="stop")
    assert deltas == [Delta(2, [1, 2], None, "stop")]


def test_what_was_cached_is_told_once() -> None:
    """On the next delta with tokens; a sign of life is none."""
    cached, deltas = answer()
    cached.cached = 5
    cached.sign()
    cached.add([1])
    cached.add([2])
    assert [delta.cached_tokens for delta in deltas] == [0, 5, 0]


@pytest.mark.parametrize("wrong", [-1, 2**31, -(2**70)])
def test_what_is_no_token_id_is_refused(wrong: int) -> None:
    """Whether it was drawn, or only likely: nothing of it is told."""
    drawn, deltas = answer(logprobs=1)
    with pytest.raises(WireError, match="invalid token id: "):
        drawn.add([1, wrong], [TokenLogprobs(-1.0), TokenLogprobs(-1.0)])
    with pytest.raises(WireError, match="invalid token id: "):
        drawn.add([1], [TokenLogprobs(-1.0, (1, wrong), (-1.0, -2.0))])
    assert deltas == []
