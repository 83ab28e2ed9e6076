"""Token ids -> text, where tokens may split characters."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Collection, Sequence


class TokenTable:
    """What each token of a model says; made once, shared by all its detokenizers.

    `pieces[i]` are the bytes of token i, none for a control token. `texts[i]` is the same as text, or None where the
    bytes are not whole characters.
    """

    def __init__(self, pieces: Sequence[bytes], control: Collection[int]) -> None:
        hidden = frozenset(control)
        self.pieces = [b"" if token in hidden else piece for token, piece in enumerate(pieces)]
        self.texts = [_text(piece) for piece in self.pieces]


class Detokenizer:
    """Gives each character as soon as it is whole. Invalid bytes become U+FFFD as with Python's `errors="replace"`;
    a character that the end of the answer cuts off is never shown, so there is nothing to flush.

    Token ids are not negative; those beyond the vocabulary (some models pad theirs) say nothing.
    """

    __slots__ = ("_held", "_pieces", "_texts")

    def __init__(self, table: TokenTable) -> None:
        self._pieces = table.pieces
        self._texts = table.texts
        self._held = b""

    @property
    def holds(self) -> bool:
        """Whether a character has begun that is not whole yet."""
        return bool(self._held)

    def decode(self, tokens: Sequence[int]) -> str:
        if not self._held:
            try:
                if len(tokens) == 1 and (text := self._texts[tokens[0]]) is not None:
                    return text
                return "".join(map(self._texts.__getitem__, tokens))  # type: ignore[arg-type]
            except (TypeError, IndexError):  # a None, or a token that is not in the table
                pass
        return self._decode_bytes(tokens)

    def _decode_bytes(self, tokens: Sequence[int]) -> str:
        size = len(self._pieces)
        data = self._held + b"".join([self._pieces[token] for token in tokens if token < size])
        text, used = utf_8_decode(data, "replace", False)
        self._held = data[used:]
        return text


def _text(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
