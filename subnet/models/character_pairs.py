"""BPE that merges characters instead of bytes, as SentencePiece does, run with tiktoken, which merges bytes.

Characters are put together from their bytes before anything else is merged: the beginnings of all characters of the
vocabulary have the lowest ranks, and nothing else has bytes of two characters of which one is incomplete. From there on
both merge the pair of neighbours whose concatenation has the lowest rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tiktoken
from numpy.typing import NDArray

from subnet.models.encoder import WHOLE_TEXT, Encoder, encoding, ranks_of_long
from subnet.models.pieces import SPACE
from subnet.node_info import TokenizerArtefact
from subnet.panics import panics_as_errors
from subnet.tensors import TokenIds

_MAX_BYTES = 4
"""Maximum length of a character in UTF-8."""


class CharacterPairEncoder(Encoder):
    """BPE over characters. One that is missing from the vocabulary becomes the tokens of its bytes.

    SentencePiece's "▁" is a space in pieces, and so it is in texts.
    """

    def __init__(self, artefact: TokenizerArtefact) -> None:
        super().__init__(artefact)
        assert artefact.merges is not None
        assert artefact.pattern is not None
        self._prefix = " " if artefact.space_prefix else ""
        ids = {artefact.pieces[token]: token for token in reversed(artefact.merges)}
        ranks = _ranks(artefact.pieces, artefact.merges)
        self._ids, self._bytes = _ids_by_rank(ranks, ids)
        self._encoding = encoding(artefact.pattern, ranks)

    def _encode(self, text: str) -> TokenIds:
        ranks = ranks_of_long(self._encoding, self._prefix + text.replace(SPACE, " "))
        found = self._ids[ranks]
        if not found.size or found.min() >= 0:
            return found
        parts = (self._bytes.get(rank, [token]) for rank, token in zip(ranks.tolist(), found.tolist(), strict=True))
        return np.array([token for part in parts for token in part], np.int32)


def reachable(pieces: Sequence[bytes], merges: Sequence[int]) -> list[int]:
    """Return those of `merges` that merging produces from their own text: no text has the others as tokens.

    tiktoken makes every word that is a token that token, without merging.
    """
    ranks = _ranks(pieces, merges)
    merged = encoding(WHOLE_TEXT, ranks)
    separator = _unused_character(ranks)
    with panics_as_errors:
        return [token for token in merges if _is_produced(merged, pieces[token], ranks[pieces[token]], separator)]


def _is_produced(merged: tiktoken.Encoding, piece: bytes, rank: int, separator: str) -> bool:
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return True
    return len(text) == 1 or merged.encode_ordinary(text + separator)[0] == rank


def _unused_character(ranks: dict[bytes, int]) -> str:
    """Return a character that is in no token, so that it does not merge."""
    return next(char for code in range(0x10FFFF, 0xFFFF, -1) if (char := chr(code)).encode() not in ranks)


def _ranks(pieces: Sequence[bytes], merges: Iterable[int]) -> dict[bytes, int]:
    ranks = {bytes([value]): value for value in range(256)}
    tokens = [pieces[token] for token in merges]
    characters = {char for piece in tokens for char in piece.decode("utf-8", "ignore") if char > "\x7f"}
    encoded = sorted(char.encode() for char in characters)
    for length in range(2, _MAX_BYTES + 1):
        for char in encoded:
            if len(char) >= length:
                ranks.setdefault(char[:length], len(ranks))
    for piece in tokens:
        ranks.setdefault(piece, len(ranks))
    return ranks


def _ids_by_rank(ranks: dict[bytes, int], ids: dict[bytes, int]) -> tuple[NDArray[np.int32], dict[int, list[int]]]:
    """Return the token of each rank, -1 for a part of a character, and the tokens of the bytes of these."""
    found = np.full(len(ranks), -1, np.int32)
    parts: dict[int, list[int]] = {}
    for piece, rank in ranks.items():
        token = ids.get(piece)
        if token is None:
            parts[rank] = [ids[byte] for byte in (bytes([value]) for value in piece) if byte in ids]
        else:
            found[rank] = token
    return found, parts
