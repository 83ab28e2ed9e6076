"""Detokenization with tokens that may contain parts of characters."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Collection, Sequence

from subnet.errors import WireError

MAX_TEXT = 64 * 2**20
"""Maximum size of the text of tokens that are decoded at once, in bytes. A node chooses tokens and their texts."""

MAX_ANSWER = 2 * MAX_TEXT
"""Maximum length of the text of all choices of an answer, in characters."""


class TokenTable:
    """Text of each token of a model, shared by all its detokenizers.

    `pieces[i]` has the bytes of token i, empty for control tokens. `texts[i]` is their text, or None if they are not
    valid UTF-8. `max_tokens` is a number of tokens whose text never exceeds MAX_TEXT.
    """

    def __init__(self, pieces: Sequence[bytes], control: Collection[int]) -> None:
        control = frozenset(control)
        self.pieces = [b"" if token in control else piece for token, piece in enumerate(pieces)]
        self.texts = [_text(piece) for piece in self.pieces]
        self.max_tokens = MAX_TEXT // max(1, *map(len, self.pieces), 1)


class Detokenizer:
    """Returns each character as soon as it is complete. Invalid bytes become U+FFFD, as with Python's
    `errors="replace"`. A character that is incomplete at the end of an answer is dropped, so there is nothing to flush.

    Token ids must not be negative. Those beyond the vocabulary, which some models pad, have no text.
    """

    __slots__ = ("_held", "_max_tokens", "_pieces", "_texts")

    def __init__(self, table: TokenTable) -> None:
        self._pieces = table.pieces
        self._texts = table.texts
        self._max_tokens = table.max_tokens
        self._held = b""

    @property
    def has_incomplete_character(self) -> bool:
        """True if the last token ended within a character."""
        return bool(self._held)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`. Raises WireError if it exceeds MAX_TEXT."""
        if not self._held:
            try:
                if len(tokens) == 1 and (text := self._texts[tokens[0]]) is not None:
                    return text
                if len(tokens) <= self._max_tokens:
                    return "".join(map(self._texts.__getitem__, tokens))  # type: ignore[arg-type]
            except (TypeError, IndexError):  # a token without valid text, or beyond the table
                pass
        return self._decode_bytes(tokens)

    def _decode_bytes(self, tokens: Sequence[int]) -> str:
        size = len(self._pieces)
        if (
            len(tokens) > self._max_tokens
            and sum(len(self._pieces[token]) for token in tokens if token < size) > MAX_TEXT
        ):
            raise WireError(f"received tokens whose text exceeds the maximum of {MAX_TEXT} bytes")
        data = self._held + b"".join([self._pieces[token] for token in tokens if token < size])
        text, used = utf_8_decode(data, "replace", False)
        self._held = data[used:]
        return text


class CountingDetokenizer(Detokenizer):
    """Detokenizer of a choice that may have `limit` characters in all."""

    __slots__ = ("_left",)

    def __init__(self, table: TokenTable, limit: int) -> None:
        super().__init__(table)
        self._left = limit

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`. Raises WireError if the choice exceeds its limit."""
        text = super().decode(tokens)
        self._left -= len(text)
        if self._left < 0:
            raise WireError(f"received an answer whose text exceeds the maximum of {MAX_ANSWER} characters")
        return text


def create_detokenizer(table: TokenTable, max_tokens: int | None, choices: int = 1) -> Detokenizer:
    """Return the detokenizer for one of `choices` of at most `max_tokens` tokens each (None: not known).

    Only where their text could exceed MAX_TEXT is it counted, so that nearly no answer pays for it. Then
    `decode` raises WireError for more than an equal share of MAX_ANSWER.
    """
    if max_tokens is not None and max_tokens * choices <= table.max_tokens:
        return Detokenizer(table)
    return CountingDetokenizer(table, MAX_ANSWER // choices)


def _text(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
