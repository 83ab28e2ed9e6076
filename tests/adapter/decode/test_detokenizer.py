"""Detokenization and formatting of logprobs."""

from __future__ import annotations

from codecs import utf_8_decode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.decode import Detokenizer, TokenTable
from adapter.decode.detokenizer import MAX_ANSWER, MAX_TEXT, create_detokenizer
from adapter.decode.token_logprobs import LogprobFormatter, TokenLogprob, TopLogprob
from subnet.errors import WireError
from subnet.generation import TokenLogprobs
from subnet.node_info import MAX_PIECE

BYTES = TokenTable([bytes([value]) for value in range(256)], control=())


def spell(data: bytes, cuts: list[int], table: TokenTable = BYTES) -> list[str]:
    """Detokenize `data` as tokens of one byte each, with one call for each stretch between `cuts`."""
    detokenizer = Detokenizer(table)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [detokenizer.decode(list(data[start:end])) for start, end in pairwise(edges)]


def whole(data: bytes) -> str:
    """Decode `data` without an incomplete character at its end."""
    return utf_8_decode(data, "replace", False)[0]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    """Any bytes, in any pieces, give the same text as decoding them at once."""
    assert "".join(spell(data, cuts)) == whole(data)


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])), st.lists(st.integers(0, 200)))
def test_no_replacement_for_a_split_character(text: str, cuts: list[int]) -> None:
    """A character that is completed later never appears as U+FFFD."""
    assert "".join(spell(text.encode(), cuts)) == text


@given(st.lists(st.integers(0, 6), max_size=20))
def test_pieces_of_any_length(tokens: list[int]) -> None:
    """Whole words, halves of characters and control tokens may follow each other in any order."""
    pieces = [b"word", "é".encode(), b"\xf0\x9f", b"\x98\x80!", b"<|end|>", b"\xff", b""]
    table = TokenTable(pieces, control={4})
    detokenizer = Detokenizer(table)
    text = "".join(detokenizer.decode([token]) for token in tokens)
    assert text == whole(b"".join(pieces[token] for token in tokens if token != 4))


def test_characters_are_returned_once_complete() -> None:
    """A character is returned with its last byte."""
    detokenizer = Detokenizer(BYTES)
    assert [detokenizer.decode([byte]) for byte in "€a".encode()] == ["", "", "€", "a"]


def test_control_tokens_have_no_text() -> None:
    """A control token has no text, even in the middle of a character."""
    detokenizer = Detokenizer(TokenTable([b"<|end|>", b"\xc3", b"\xa9"], control={0}))
    assert detokenizer.decode([0, 1]) == ""
    assert detokenizer.decode([0]) == ""
    assert detokenizer.decode([2, 0]) == "é"


def test_tokens_beyond_the_vocabulary() -> None:
    """Token ids beyond the vocabulary, which padded models can generate, have no text."""
    detokenizer = Detokenizer(TokenTable([b"a", b"\xc3"], control=()))
    assert detokenizer.decode([0, 2, 7, 0]) == "aa"
    assert detokenizer.decode([1, 2]) == ""


def test_an_incomplete_character_at_the_end() -> None:
    """An incomplete character at the end of an answer is dropped."""
    detokenizer = Detokenizer(BYTES)
    assert detokenizer.decode([0x61, 0xE2, 0x82]) == "a"


def test_logprobs() -> None:
    """Logprobs are formatted for incomplete characters, unknown tokens and impossible tokens, and cut to `max_top`."""
    formatter = LogprobFormatter([b"a", b"\xc3"], 2)
    nothing = float("-inf")
    assert formatter.format(1, TokenLogprobs(nothing, (2, 0, 1), (-0.5, nothing, -7.0))) == TokenLogprob(
        token="\ufffd",
        logprob=-9999.0,
        bytes=[0xC3],
        top_logprobs=[
            TopLogprob(token="", logprob=-0.5, bytes=[]),
            TopLogprob(token="a", logprob=-9999.0, bytes=[0x61]),
        ],
    )


def test_the_text_of_a_delta_is_bounded() -> None:
    """Many short tokens have their text, though the vocabulary has a long one; many long ones are refused."""
    table = TokenTable([b"a", b"x" * MAX_PIECE, b"\xff"], control=())
    most = MAX_TEXT // MAX_PIECE
    assert Detokenizer(table).decode([0] * (2 * most)) == "a" * 2 * most
    # The last token is beyond the table, and has no text.
    for tokens in ([1] * most, [*[1] * most, 3]):
        assert len(Detokenizer(table).decode(tokens)) == MAX_TEXT
    for tokens in ([1] * (most + 1), [2, *[1] * (most + 1)], [*[1] * most, 0]):
        with pytest.raises(WireError, match="exceeds the maximum"):
            Detokenizer(table).decode(tokens)


def test_the_text_of_an_answer_is_bounded() -> None:
    """A choice whose tokens could have too much text is cut off once it has; others are not even counted."""
    table = TokenTable([b"a" * MAX_PIECE, b"b"], control=())
    most = MAX_TEXT // MAX_PIECE
    assert type(create_detokenizer(table, most)) is Detokenizer
    assert type(create_detokenizer(table, most // 2, choices=2)) is Detokenizer
    for max_tokens, choices in ((most + 1, 1), (None, 1), (most, 4)):
        counting = create_detokenizer(table, max_tokens, choices)
        share = MAX_ANSWER // choices
        assert sum(len(counting.decode([0])) for _ in range(share // MAX_PIECE)) == share
        with pytest.raises(WireError, match="exceeds the maximum"):
            counting.decode([1])
