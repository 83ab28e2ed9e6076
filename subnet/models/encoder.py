"""Encoding of plain text to token ids, by the tokenizer that an artefact describes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import regex
import tiktoken
import tokenizers
from numpy.typing import NDArray

from subnet.errors import InvalidRequest, SettingsError
from subnet.node_info import TokenizerArtefact
from subnet.panics import LibraryPanic, panics_as_errors
from subnet.tensors import TokenIds

_MAX_ORDINARY = 512
"""Maximum length, in characters, of text that is encoded with tiktoken's faster `encode_ordinary`. If splitting a text
takes more than a million steps, `encode_ordinary` may panic, whereas `encode_to_numpy` raises an error."""

WHOLE_TEXT = r"(?s:.+)"
"""Pattern that does not split a text."""


class Encoder(ABC):
    """Encodes plain text: user-defined tokens are matched first, and the text of control tokens stays text."""

    def __init__(self, artefact: TokenizerArtefact) -> None:
        self._user_defined_ids = ids_by_text(artefact.pieces, artefact.user_defined)
        self._user_defined_texts = split_pattern(self._user_defined_ids)

    def encode(self, text: str) -> TokenIds:
        """Return the token ids of a text without lone surrogates.

        Raises InvalidRequest if splitting the text exceeds the tokenizer's limits, as for a run of nearly a million
        spaces, and if the tokenizer fails.
        """
        try:
            with panics_as_errors:
                return self._encode_parts(text) if self._user_defined_ids else self._encode(text) if text else join([])
        except LibraryPanic as error:
            raise InvalidRequest("The text cannot be tokenized: the tokenizer failed.", param="messages") from error

    def _encode_parts(self, text: str) -> TokenIds:
        parts = enumerate(self._user_defined_texts.split(text))
        return join(
            [
                np.array([self._user_defined_ids[part]], np.int32) if index % 2 else self._encode(part)
                for index, part in parts
                if part
            ]
        )

    def encode_all(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text. Raises InvalidRequest."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def _encode(self, text: str) -> TokenIds:
        """Encode text that is not empty, without matching user-defined tokens."""


class BytePairEncoder(Encoder):
    """Byte-level BPE. As in llama.cpp, bytes that are missing from the vocabulary become no token."""

    def __init__(self, artefact: TokenizerArtefact) -> None:
        super().__init__(artefact)
        assert artefact.merges is not None
        ranks = {artefact.pieces[token]: rank for rank, token in enumerate(artefact.merges)}
        missing = [byte for byte in (bytes([value]) for value in range(256)) if byte not in ranks]
        ranks |= {byte: len(artefact.merges) + index for index, byte in enumerate(missing)}
        self._lacks_bytes = bool(missing)
        self._ids = array("i", [*artefact.merges, *([-1] * len(missing))])
        self._passes = _compile(artefact.passes)
        self._encoding = encoding(WHOLE_TEXT if artefact.pattern is None else artefact.pattern, ranks)

    def _encode(self, text: str) -> TokenIds:
        if self._passes:
            encode, ids = self._encoding.encode_ordinary, self._ids
            found = np.array([ids[rank] for word in split(self._passes, text) for rank in encode(word)], np.int32)
        else:
            found = self._encode_short(text) if len(text) <= _MAX_ORDINARY else self._encode_long(text)
        return found[found >= 0] if self._lacks_bytes else found

    def _encode_short(self, text: str) -> TokenIds:
        # For few tokens, indexing with numpy would take longer than everything else here.
        return np.array([*map(self._ids.__getitem__, self._encoding.encode_ordinary(text))], np.int32)

    def _encode_long(self, text: str) -> TokenIds:
        return np.frombuffer(self._ids, np.int32)[ranks_of_long(self._encoding, text)]


class JsonEncoder(Encoder):
    """Tokenizer that runs a tokenizer.json with the `tokenizers` package."""

    def __init__(self, artefact: TokenizerArtefact) -> None:
        super().__init__(artefact)
        self._tokenizer = plain_tokenizer(artefact)

    def _encode(self, text: str) -> TokenIds:
        try:
            return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        except Exception as error:  # the package raises nothing more precise
            raise InvalidRequest(f"The text cannot be tokenized: {error}", param="messages") from error


def encoding(pattern: str, ranks: dict[bytes, int]) -> tiktoken.Encoding:
    """Return tiktoken's encoding with these ranks, among them all single bytes. Raises SettingsError."""
    try:
        with panics_as_errors:
            return tiktoken.Encoding("model", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    except (ValueError, LibraryPanic) as error:
        raise SettingsError(f"invalid tokenizer: {error}") from error


def ranks_of_long(encoder: tiktoken.Encoding, text: str) -> NDArray[np.uint32]:
    """Return the ranks of a text of any length. Raises InvalidRequest."""
    try:
        return encoder.encode_to_numpy(text, disallowed_special=())
    except ValueError as error:
        raise InvalidRequest(f"The text cannot be tokenized: {error}", param="messages") from error


def split(passes: Iterable[regex.Pattern[str]], text: str) -> list[str]:
    """Divide a text into the matches of each pattern and what is between them, one pattern after the other."""
    words = [text]
    for pattern in passes:
        words = [part for word in words for part in _split_once(pattern, word)]
    return words


def _split_once(pattern: regex.Pattern[str], text: str) -> Iterator[str]:
    position = 0
    for match in pattern.finditer(text):
        start, end = match.span()
        if start > position:
            yield text[position:start]
        if end > start:
            yield text[start:end]
        position = end
    if position < len(text):
        yield text[position:]


def _compile(passes: Iterable[str]) -> list[regex.Pattern[str]]:
    try:
        return [regex.compile(pattern) for pattern in passes]
    except regex.error as error:
        raise SettingsError(f"invalid tokenizer: {error}") from error


def ids_by_text(pieces: Sequence[bytes], ids: Iterable[int]) -> dict[str, int]:
    """Return the ids by the texts of their tokens, without tokens that have no text."""
    texts = {pieces[token].decode("utf-8", "ignore"): token for token in ids}
    texts.pop("", None)
    return texts


def split_pattern(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern whose `split` alternates plain text and one of `texts`. The longest text takes precedence."""
    return re.compile("(" + ("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)") + ")")


def join(parts: Sequence[NDArray[np.int32]]) -> TokenIds:
    """Return the concatenation of `parts`."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def plain_tokenizer(artefact: TokenizerArtefact) -> tokenizers.Tokenizer:
    """Return a tokenizer that does not match control and user-defined tokens, adds none, and does not truncate. Raises
    SettingsError.
    """
    try:
        document = msgspec.json.decode(artefact.tokenizer_json or "", type=dict[str, Any])
        removed = {*artefact.control, *artefact.user_defined}
        document["added_tokens"] = [
            token for token in document.get("added_tokens", []) if token["id"] not in removed and not token["special"]
        ]
        document |= {"post_processor": None, "truncation": None, "padding": None}
        _rename_control_tokens(document["model"], frozenset(artefact.control))
        with panics_as_errors:
            return tokenizers.Tokenizer.from_str(msgspec.json.encode(document).decode())
    except Exception as error:  # the package raises nothing more precise
        raise SettingsError(f"invalid tokenizer: {error}") from error


def _rename_control_tokens(model: dict[str, Any], control: frozenset[int]) -> None:
    """Rename control tokens in the vocabulary to strings that no text contains. Some models match every text that is
    listed in the vocabulary.
    """
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [
            [_unmatchable(token) if token in control else piece, score]
            for token, (piece, score) in enumerate(vocabulary)
        ]
    else:
        model["vocab"] = {
            _unmatchable(token) if token in control and piece != model.get("unk_token") else piece: token
            for piece, token in vocabulary.items()
        }


def _unmatchable(token: int) -> str:
    return f"\ufdd0\ufdd1{token}"
