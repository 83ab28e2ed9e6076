"""Token ids that llama-server leaves out of its streams.

It sends text only in whole characters, and with it the id of the last token alone: of a character that is made of
three tokens, two are never told. What is told is how many tokens there are so far, and the text. So the bytes of the
missing ones are known, and how many they are; which ones follows from the vocabulary, almost always in one way. Where
there are several, those win whose merges were learned first, as in byte-pair encoding: no other comes from a model that
was trained on text so encoded.
"""

from __future__ import annotations

from collections.abc import Sequence

_Way = tuple[int, tuple[int, ...]]


class Unreadable(Exception):
    """Tokens are missing, and what they are cannot be told from the text."""


class Vocabulary:
    """The tokens that may stand before the end of a character; `pieces[i]` are the bytes of token i."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self._ids: dict[bytes, int] = {}
        for token, piece in enumerate(pieces):
            if not piece.isascii():
                self._ids.setdefault(piece, token)

    def split(self, text: bytes, counts: range) -> list[int] | None:
        """The first of `counts` tokens in which `text` can be cut, each cut within a character, the last at the end."""
        cuts = [0, *(at for at in range(1, len(text) + 1) if ends_within(text[:at]))]
        if not counts or not text or cuts[-1] != len(text):
            return None
        # For each number of tokens the best way to each cut: its largest id, and its ids.
        ways: dict[int, _Way] = {0: (-1, ())}
        for count in range(1, counts.stop):
            ways = self._longer(text, cuts, ways)
            if count in counts and len(text) in ways:
                return list(ways[len(text)][1])
        return None

    def _longer(self, text: bytes, cuts: Sequence[int], ways: dict[int, _Way]) -> dict[int, _Way]:
        found: dict[int, _Way] = {}
        for start, (largest, ids) in ways.items():
            for end in cuts:
                token = self._ids.get(text[start:end]) if end > start else None
                if token is not None:
                    way = (max(largest, token), (*ids, token))
                    found[end] = min(way, found.get(end, way))
        return found


class Tokens:
    """All the ids of one stream. `counted`: the server's count is exact, as it is unless it drafts tokens ahead."""

    def __init__(self, vocabulary: Vocabulary, counted: bool) -> None:
        self.known = 0
        self._vocabulary = vocabulary
        self._counted = counted

    def decode(self, content: str, tokens: Sequence[int], count: int) -> list[int]:
        """What an event adds: its `content`, its `tokens`, and the `count` of tokens up to it. Raises Unreadable."""
        missing = count - self.known - len(tokens)
        if missing < 0 and self._counted:
            raise Unreadable
        found = self._missing(content.encode(), tokens, missing) if missing > 0 and tokens else []
        self.known += len(found) + len(tokens)
        return [*found, *tokens]

    def _missing(self, text: bytes, tokens: Sequence[int], missing: int) -> list[int]:
        told = b"".join(self._vocabulary.pieces[token] for token in tokens)
        if not self._counted and text == told:
            return []
        counts = range(missing if self._counted else 1, missing + 1)
        found = self._vocabulary.split(text.removesuffix(told), counts) if text.endswith(told) else None
        if found is None:
            raise Unreadable
        return found


def ends_within(text: bytes) -> bool:
    """Whether the end of `text` is that of no character, by the server's own test."""
    for back, byte in enumerate(reversed(text[-4:]), 1):
        if byte >> 5 == 0b110:
            return back < 2
        if byte >> 4 == 0b1110:
            return back < 3
        if byte >> 3 == 0b11110:
            return back < 4
    return False
