"""Token ids that llama-server leaves out of a stream: found again from the text and the count."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.llama_cpp import NativeTokenizer
from subnet.engines.llama_server.split import Tokens, Unreadable, Vocabulary, ends_within
from subnet.models.card import describe
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact

BYTES = [bytes([byte]) for byte in range(256)]
# Single bytes, words, and beginnings and ends of characters, some of which can be cut in several ways.
PIECES = [
    *BYTES,
    b"a",
    b" the",
    "é".encode(),
    b"\xf0\x9f",
    b"\x9f\x8e",
    b"\x8e\x89",
    b"x\xe4",
    b"\xb8\xad\xe8",
    b" \xf0",
]
TEXT = st.text(st.sampled_from("aé中語🎉🦜 x\n"))


def streamed(pieces: Sequence[bytes], ids: Sequence[int], drafted: int = 1) -> Iterator[tuple[str, list[int], int]]:
    """What the server sends of `ids`: content, tokens, and the count, which a server that drafts `drafted` tokens at a
    time raises by them all at once."""
    text, sent = b"", 0
    for at, token in enumerate(ids):
        text += pieces[token]
        if not ends_within(text):
            count = min(len(ids), (at // drafted + 1) * drafted)
            yield text[sent:].decode(errors="replace"), [token], count
            sent = len(text)


def decoded(pieces: Sequence[bytes], events: Iterator[tuple[str, list[int], int]], counted: bool = True) -> list[int]:
    tokens = Tokens(Vocabulary(pieces), counted)
    return [token for event in events for token in tokens.decode(*event)]


def cut(text: bytes, pieces: Sequence[bytes], picks: Iterator[int]) -> list[int]:
    """Some way to write `text` in tokens."""
    ids = []
    while text:
        able = [token for token, piece in enumerate(pieces) if text.startswith(piece)]
        ids.append(able[next(picks) % len(able)])
        text = text[len(pieces[ids[-1]]) :]
    return ids


@given(TEXT)
def test_bytes_as_tokens_are_all_found(text: str) -> None:
    """Where each byte is a token there is one way: every id comes back."""
    ids = list(text.encode())
    assert decoded(BYTES, streamed(BYTES, ids)) == ids


@given(TEXT, st.integers(0, 2**32))
def test_any_cut_keeps_text_and_count(text: str, seed: int) -> None:
    """However a text was cut into tokens, as many come back, of the same bytes."""
    picks = iter(int(digit) for digit in str(seed) * 400)
    ids = cut(text.encode(), PIECES, picks)
    found = decoded(PIECES, streamed(PIECES, ids))
    assert b"".join(PIECES[token] for token in found) == text.encode()
    assert len(found) == len(ids)


@given(TEXT, st.integers(2, 6))
def test_a_count_that_runs_ahead_loses_nothing(text: str, drafted: int) -> None:
    """From a server that drafts tokens, whose count is ahead of what it sends, the bytes are those of the text."""
    ids = list(text.encode())
    found = decoded(BYTES, streamed(BYTES, ids, drafted), counted=False)
    assert bytes(found) == text.encode()


def test_of_several_ways_the_first_learned_counts() -> None:
    """The bytes before the last of this character can be cut in two ways: by lower ids, as a tokenizer would."""
    early, late = PIECES.index(b"\xf0\x9f"), PIECES.index(b"\x9f\x8e")
    assert early < late
    assert decoded(PIECES, iter([("🎉", [0x89], 3)])) == [early, 0x8E, 0x89]


@pytest.mark.parametrize(
    "event", [("\ufffda", [ord("a")], 2), ("🎉", [ord("a")], 2), ("🎉", [0x89], 9), ("a", [ord("a")], 0)]
)
def test_what_cannot_be_is_not_guessed(event: tuple[str, list[int], int]) -> None:
    """Bytes that are no text, a text that does not end with its token, more tokens than bytes, no count: Unreadable."""
    with pytest.raises(Unreadable):
        decoded(PIECES, iter([event]))


def test_tokens_that_are_all_told_are_taken_as_they_are() -> None:
    """Control tokens without text, and bytes that are no text, are not looked at while the count is right."""
    assert decoded(PIECES, iter([("", [3], 1), ("\ufffd", [0x89], 2)])) == [3, 0x89]


def test_the_characters_of_unicode_are_found_as_the_model_writes_them() -> None:
    """Every tenth character that is assigned, in the demo model's own tokens."""
    path = resolve(None, print)
    pieces = TokenizerArtefact.from_bytes(describe(path)[1]).pieces
    vocabulary = Vocabulary(pieces)
    characters = [chr(code) for code in range(0x80, 0x323B0, 10) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    with NativeTokenizer(path) as native:
        for character in characters:
            ids = native.tokenize(f"a{character}b")
            tokens = Tokens(vocabulary, counted=True)
            assert [token for event in streamed(pieces, ids) for token in tokens.decode(*event)] == ids
