"""Recovery of token ids that llama-server omits from a stream."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.llama_cpp import NativeTokenizer
from subnet.engines.llama_server.token_recovery import (
    TokenRecovery,
    UnrecoverableTokens,
    Vocabulary,
    ends_inside_character,
)
from subnet.models.card import describe
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact

BYTES = [bytes([byte]) for byte in range(256)]
# Single bytes, words, and beginnings and ends of characters, some of which can be split in several ways.
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
    """Yield what the server sends for `ids`: content, tokens and count. With speculative decoding, the count rises by
    `drafted` tokens at once."""
    text, sent = b"", 0
    for index, token in enumerate(ids):
        text += pieces[token]
        if not ends_inside_character(text):
            count = min(len(ids), (index // drafted + 1) * drafted)
            yield text[sent:].decode(errors="replace"), [token], count
            sent = len(text)


def recover(
    pieces: Sequence[bytes], events: Iterator[tuple[str, list[int], int]], exact_count: bool = True
) -> list[int]:
    recovery = TokenRecovery(Vocabulary(pieces), exact_count)
    return [token for event in events for token in recovery.decode(*event)]


def split_at_random(text: bytes, pieces: Sequence[bytes], picks: Iterator[int]) -> list[int]:
    """Split `text` into tokens, which `picks` selects."""
    ids = []
    while text:
        candidates = [token for token, piece in enumerate(pieces) if text.startswith(piece)]
        ids.append(candidates[next(picks) % len(candidates)])
        text = text[len(pieces[ids[-1]]) :]
    return ids


@given(TEXT)
def test_all_single_byte_tokens_are_recovered(text: str) -> None:
    """Every id is recovered if each byte is a token."""
    ids = list(text.encode())
    assert recover(BYTES, streamed(BYTES, ids)) == ids


@given(TEXT, st.integers(0, 2**32))
def test_recovery_keeps_text_and_count(text: str, seed: int) -> None:
    """However a text is split into tokens, recovery gives the same number of tokens with the same bytes."""
    picks = iter(int(digit) for digit in str(seed) * 400)
    ids = split_at_random(text.encode(), PIECES, picks)
    recovered = recover(PIECES, streamed(PIECES, ids))
    assert b"".join(PIECES[token] for token in recovered) == text.encode()
    assert len(recovered) == len(ids)


@given(TEXT, st.integers(2, 6))
def test_recovery_with_speculative_decoding(text: str, drafted: int) -> None:
    """The bytes are recovered if the server's count is ahead of its tokens because of speculative decoding."""
    ids = list(text.encode())
    recovered = recover(BYTES, streamed(BYTES, ids, drafted), exact_count=False)
    assert bytes(recovered) == text.encode()


def test_ambiguous_splits_prefer_lower_ids() -> None:
    """If bytes can be split in several ways, the one with lower ids is chosen, as by a tokenizer."""
    lower, higher = PIECES.index(b"\xf0\x9f"), PIECES.index(b"\x9f\x8e")
    assert lower < higher
    assert recover(PIECES, iter([("🎉", [0x89], 3)])) == [lower, 0x8E, 0x89]


@pytest.mark.parametrize(
    "event", [("\ufffda", [ord("a")], 2), ("🎉", [ord("a")], 2), ("🎉", [0x89], 9), ("a", [ord("a")], 0)]
)
def test_inconsistent_events_are_not_recovered(event: tuple[str, list[int], int]) -> None:
    """Invalid UTF-8, a text that does not end with its token, and an impossible count raise UnrecoverableTokens."""
    with pytest.raises(UnrecoverableTokens):
        recover(PIECES, iter([event]))


def test_complete_events_need_no_recovery() -> None:
    """Events with all ids are passed through, also for control tokens without text and for invalid UTF-8."""
    assert recover(PIECES, iter([("", [3], 1), ("\ufffd", [0x89], 2)])) == [3, 0x89]


def test_unicode_characters_are_recovered() -> None:
    """Every tenth assigned character is recovered as the demo model's own tokens."""
    path = resolve(None, print)
    pieces = TokenizerArtefact.from_bytes(describe(path)[1]).pieces
    vocabulary = Vocabulary(pieces)
    characters = [chr(code) for code in range(0x80, 0x323B0, 10) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    with NativeTokenizer(path) as native:
        for character in characters:
            ids = native.tokenize(f"a{character}b")
            recovery = TokenRecovery(vocabulary, exact_count=True)
            assert [token for event in streamed(pieces, ids) for token in recovery.decode(*event)] == ids
