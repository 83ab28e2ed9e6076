"""Recovery of token ids that llama-server omits from its streams.

The server sends text in whole characters only, and with it the id of the last token only: of a character that consists
of three tokens, two ids are omitted. It also sends the number of tokens so far. So the bytes and the number of the
missing tokens are known, and the vocabulary nearly always allows only one combination. If there are several, the one
whose merges were learned first is chosen, as byte-pair encoding does: a model trained on text encoded that way does not
generate another one.
"""

from __future__ import annotations

from collections.abc import Sequence

_Split = tuple[int, tuple[int, ...]]


class UnrecoverableTokens(Exception):
    """Raised if tokens are missing and cannot be derived from the text."""


class Vocabulary:
    """Tokens that may precede the end of a character. `pieces[i]` is the bytes of token i."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self._ids: dict[bytes, int] = {}
        for token, piece in enumerate(pieces):
            if not piece.isascii():
                self._ids.setdefault(piece, token)

    def split(self, text: bytes, counts: range) -> list[int] | None:
        """Split `text` into the first possible number of tokens in `counts`. Return None if there is no split.

        Every token ends inside a character, the last one at the end of `text`.
        """
        boundaries = [0, *(position for position in range(1, len(text) + 1) if ends_inside_character(text[:position]))]
        if not counts or not text or boundaries[-1] != len(text):
            return None
        # For each boundary, the best split of the text before it into `count` tokens: its largest id, and its ids.
        splits: dict[int, _Split] = {0: (-1, ())}
        for count in range(1, counts.stop):
            splits = self._extend(text, boundaries, splits)
            if count in counts and len(text) in splits:
                return list(splits[len(text)][1])
        return None

    def _extend(self, text: bytes, boundaries: Sequence[int], splits: dict[int, _Split]) -> dict[int, _Split]:
        extended: dict[int, _Split] = {}
        for start, (max_id, ids) in splits.items():
            for end in boundaries:
                token = self._ids.get(text[start:end]) if end > start else None
                if token is not None:
                    candidate = (max(max_id, token), (*ids, token))
                    extended[end] = min(candidate, extended.get(end, candidate))
        return extended


class TokenRecovery:
    """Recovers all ids of one stream, and counts them.

    `exact_count`: the server's number of tokens is exact, which it is unless the server uses speculative decoding.
    """

    def __init__(self, vocabulary: Vocabulary, exact_count: bool) -> None:
        self.token_count = 0
        self._vocabulary = vocabulary
        self._exact_count = exact_count

    def decode(self, content: str, tokens: Sequence[int], count: int) -> list[int]:
        """Return the ids that an event adds, from its `content`, its `tokens`, and the `count` of tokens so far.

        Raises UnrecoverableTokens.
        """
        missing = count - self.token_count - len(tokens)
        if missing < 0 and self._exact_count:
            raise UnrecoverableTokens
        recovered = self._recover(content.encode(), tokens, missing) if missing > 0 and tokens else []
        self.token_count += len(recovered) + len(tokens)
        return [*recovered, *tokens]

    def _recover(self, text: bytes, tokens: Sequence[int], missing: int) -> list[int]:
        known_bytes = b"".join(self._vocabulary.pieces[token] for token in tokens)
        if not self._exact_count and text == known_bytes:
            return []
        counts = range(missing if self._exact_count else 1, missing + 1)
        is_suffix = text.endswith(known_bytes)
        recovered = self._vocabulary.split(text.removesuffix(known_bytes), counts) if is_suffix else None
        if recovered is None:
            raise UnrecoverableTokens
        return recovered


def ends_inside_character(text: bytes) -> bool:
    """Return whether `text` ends inside a character, by the same test as the server's."""
    for distance, byte in enumerate(reversed(text[-4:]), 1):
        if byte >> 5 == 0b110:
            return distance < 2
        if byte >> 4 == 0b1110:
            return distance < 3
        if byte >> 3 == 0b11110:
            return distance < 4
    return False
