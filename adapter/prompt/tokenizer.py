"""Tokenization as by the model's own tokenizer, which is loaded from the artefact that nodes provide."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np
import tiktoken
import tokenizers
from cachetools import LRUCache, cachedmethod
from numpy.typing import NDArray

from adapter.prompt.guard import Guard
from subnet.errors import InvalidRequest, SettingsError
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds

MAX_CACHED_BYTES = 8 * 2**20
"""Approximate maximum size of the texts and token ids that a tokenizer caches, as system prompts and earlier turns
recur."""

_MAX_ORDINARY = 512
"""Maximum length, in characters, of text that is encoded with tiktoken's faster `encode_ordinary`. If splitting a text
takes more than a million steps, `encode_ordinary` may panic, whereas `encode_to_numpy` raises an error."""


class _CachedTokens(NamedTuple):
    """Cache entry. `ids` is int32 data. `size`, in bytes, includes the text."""

    ids: bytes
    size: int


class Tokenizer(ABC):
    """Tokenizer of a model, which encodes lone surrogates as U+FFFD.

    `pieces[i]` has the bytes of token i. `control` has the ids of control tokens, and `special` has these ids by text.
    User text must not be encoded as control tokens: see `guard`.
    """

    def __init__(self, artefact: TokenizerArtefact) -> None:
        self.pieces = artefact.pieces
        self.control = frozenset(artefact.control)
        self.vocab_size = len(artefact.pieces)
        bos = artefact.bos_id if artefact.add_bos else None
        self._bos = [] if bos is None else [np.array([bos], np.int32)]
        self.special = _ids_by_text(artefact.pieces, artefact.control)
        self._user_defined_ids = _ids_by_text(artefact.pieces, artefact.user_defined)
        self._control_texts = _split_pattern(self.special)
        self._user_defined_texts = _split_pattern(self._user_defined_ids)
        self.guard = Guard(self.special)
        self._control_bytes = {text: np.int32(token).tobytes() for text, token in self.special.items()}
        # Large requests are tokenized in threads.
        self._cache: LRUCache[str, _CachedTokens] = LRUCache(MAX_CACHED_BYTES, getsizeof=attrgetter("size"))
        self._cache_lock = Lock()

    def encode_text(self, text: str) -> TokenIds:
        """Encode plain text: texts of control tokens become ordinary tokens. User-defined tokens are matched first.

        Raises InvalidRequest if splitting the text exceeds the tokenizer's limits, as for a run of nearly a million
        spaces.
        """
        return _join(self._encode_plain(_without_surrogates(text)))

    def encode_with_bos(self, text: str) -> TokenIds:
        """Encode plain text as a complete prompt that is not from a chat template: as `encode_text`, after the
        beginning-of-sequence token if the model requires one. Raises InvalidRequest.
        """
        return _join([*self._bos, *self._encode_plain(_without_surrogates(text))])

    def encode_prompt(self, text: str, mark: str = "") -> TokenIds:
        """Encode the output of a chat template: texts of control tokens become control tokens, unless `mark` breaks
        them up (see Guard). The mark itself is removed. Raises InvalidRequest.
        """
        parts: list[bytes] = []
        for index, part in enumerate(self._control_texts.split(_without_surrogates(text))):
            if index % 2:
                parts.append(self._control_bytes[part])
            elif part:
                parts.append(self._encode_segment(part.replace(mark, "") if mark else part).ids)
        return np.frombuffer(bytearray().join(parts), np.int32)

    @cachedmethod(attrgetter("_cache"), key=lambda _, text: text, lock=attrgetter("_cache_lock"))
    def _encode_segment(self, text: str) -> _CachedTokens:
        """Encode the text between two control tokens. It can be cached, as no token spans a control token."""
        ids = _join(self._encode_plain(text)).tobytes()
        return _CachedTokens(ids, 4 * len(text) + len(ids))

    def _encode_plain(self, text: str) -> list[TokenIds]:
        if not self._user_defined_ids:
            return [self._encode(text)] if text else []
        parts = enumerate(self._user_defined_texts.split(text))
        return [
            np.array([self._user_defined_ids[part]], np.int32) if index % 2 else self._encode(part)
            for index, part in parts
            if part
        ]

    @abstractmethod
    def _encode(self, text: str) -> TokenIds:
        """Encode text that is not empty and has no lone surrogates, without matching control or user-defined tokens."""


class BytePairTokenizer(Tokenizer):
    """Byte-level BPE tokenizer. As in llama.cpp, bytes that are missing from the vocabulary become no token."""

    def __init__(self, artefact: TokenizerArtefact) -> None:
        super().__init__(artefact)
        assert artefact.pattern is not None
        assert artefact.merges is not None
        ranks = {artefact.pieces[token]: rank for rank, token in enumerate(artefact.merges)}
        missing = [byte for byte in (bytes([value]) for value in range(256)) if byte not in ranks]
        ranks |= {byte: len(artefact.merges) + index for index, byte in enumerate(missing)}
        self._lacks_bytes = bool(missing)
        self._ids = array("i", [*artefact.merges, *([-1] * len(missing))])
        try:
            self._encoding = tiktoken.Encoding(
                "model", pat_str=artefact.pattern, mergeable_ranks=ranks, special_tokens={}
            )
        except ValueError as error:
            raise SettingsError(f"invalid tokenizer: {error}") from error

    def _encode(self, text: str) -> TokenIds:
        ids = self._encode_short(text) if len(text) <= _MAX_ORDINARY else self._encode_long(text)
        return ids[ids >= 0] if self._lacks_bytes else ids

    def _encode_short(self, text: str) -> TokenIds:
        # For few tokens, indexing with numpy would take longer than everything else here.
        return np.array([*map(self._ids.__getitem__, self._encoding.encode_ordinary(text))], np.int32)

    def _encode_long(self, text: str) -> TokenIds:
        try:
            ranks = self._encoding.encode_to_numpy(text, disallowed_special=())
            return np.frombuffer(self._ids, np.int32)[ranks]
        except ValueError as error:
            raise InvalidRequest(f"The text cannot be tokenized: {error}", param="messages") from error


class JsonTokenizer(Tokenizer):
    """Tokenizer that runs a tokenizer.json with the `tokenizers` package."""

    def __init__(self, artefact: TokenizerArtefact) -> None:
        super().__init__(artefact)
        self._tokenizer = plain_tokenizer(artefact)

    def _encode(self, text: str) -> TokenIds:
        try:
            return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        except Exception as error:  # the package raises nothing more precise
            raise InvalidRequest(f"The text cannot be tokenized: {error}", param="messages") from error


def load_tokenizer(artefact: TokenizerArtefact) -> Tokenizer:
    """Create a tokenizer from its artefact. Takes about a second for a large vocabulary. Raises SettingsError for an
    invalid artefact.
    """
    if artefact.pattern is not None and artefact.merges is not None:
        return BytePairTokenizer(artefact)
    if artefact.tokenizer_json is not None:
        return JsonTokenizer(artefact)
    raise SettingsError("invalid tokenizer: expected BPE merges or a tokenizer.json, but got neither")


def _ids_by_text(pieces: Sequence[bytes], ids: Iterable[int]) -> dict[str, int]:
    """Return the ids by the texts of their tokens, without tokens that have no text."""
    texts = {pieces[token].decode("utf-8", "ignore"): token for token in ids}
    texts.pop("", None)
    return texts


def _split_pattern(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern whose `split` alternates plain text and one of `texts`. The longest text takes precedence."""
    return re.compile("(" + ("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)") + ")")


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _join(parts: Sequence[NDArray[np.int32]]) -> TokenIds:
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
