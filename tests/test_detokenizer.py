"""Token ids -> text."""

from __future__ import annotations

from codecs import utf_8_decode
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapter.decode import Detokenizer, TokenTable
from adapter.decode.logprobs import Teller, TokenLogprob, TopLogprob
from subnet.generation import TokenLogprobs

BYTES = TokenTable([bytes([value]) for value in range(256)], control=())


def spell(data: bytes, cuts: list[int], table: TokenTable = BYTES) -> list[str]:
    """What a detokenizer gives for tokens of one byte each, a call for each stretch between `cuts`."""
    detokenizer = Detokenizer(table)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [detokenizer.decode(list(data[start:end])) for start, end in pairwise(edges)]


def whole(data: bytes) -> str:
    """The decoding of `data` but for a character that its end cuts off."""
    return utf_8_decode(data, "replace", False)[0]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    """Whatever the bytes and however they are cut, the text is the decoding of the whole."""
    assert "".join(spell(data, cuts)) == whole(data)


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])), st.lists(st.integers(0, 200)))
def test_no_broken_character_is_shown(text: str, cuts: list[int]) -> None:
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


def test_characters_come_as_soon_as_they_are_whole() -> None:
    """The last byte of a character brings it, and nothing comes before."""
    detokenizer = Detokenizer(BYTES)
    assert [detokenizer.decode([byte]) for byte in "€a".encode()] == ["", "", "€", "a"]


def test_control_tokens_say_nothing() -> None:
    """Not even when one comes in the middle of a character."""
    detokenizer = Detokenizer(TokenTable([b"<|end|>", b"\xc3", b"\xa9"], control={0}))
    assert detokenizer.decode([0, 1]) == ""
    assert detokenizer.decode([0]) == ""
    assert detokenizer.decode([2, 0]) == "é"


def test_tokens_beyond_the_vocabulary_say_nothing() -> None:
    """Models whose output is padded may draw them."""
    detokenizer = Detokenizer(TokenTable([b"a", b"\xc3"], control=()))
    assert detokenizer.decode([0, 2, 7, 0]) == "aa"
    assert detokenizer.decode([1, 2]) == ""


def test_an_unfinished_character_is_not_shown() -> None:
    """An answer that ends in the middle of a character ends before it."""
    detokenizer = Detokenizer(BYTES)
    assert detokenizer.decode([0x61, 0xE2, 0x82]) == "a"


def test_what_is_shown_of_logprobs() -> None:
    """Of so many of the likeliest: parts of characters, tokens beyond the vocabulary, and those that cannot come."""
    teller = Teller([b"a", b"\xc3"], 2)
    nothing = float("-inf")
    assert teller.told(1, TokenLogprobs(nothing, (2, 0, 1), (-0.5, nothing, -7.0))) == TokenLogprob(
        token="\ufffd",
        logprob=-9999.0,
        bytes=[0xC3],
        top_logprobs=[
            TopLogprob(token="", logprob=-0.5, bytes=[]),
            TopLogprob(token="a", logprob=-9999.0, bytes=[0x61]),
        ],
    )
