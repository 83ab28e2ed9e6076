"""Text -> token ids, as the model's own tokenizer does it, from the artefact that its node hands out."""

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
"""Approximate size of the texts and token ids that a tokenizer caches: system prompts and earlier turns recur."""

SHORT = 512
"""Characters that tiktoken's `encode_ordinary`, which is faster, may be given: with more it may panic where
`encode_to_numpy` raises, since splitting takes more steps than are allowed (a million)."""


class _CachedTokens(NamedTuple):
    """`ids` is int32 data. `size` counts the text as well, in bytes."""

    ids: bytes
    size: int


class Tokenizer(ABC):
    """`pieces[i]` are the bytes of token i, `control` the ids that no user's text may become, and `guard` keeps it so;
    `special` has them by their texts.

    Lone surrogates are encoded as U+FFFD.
    """

    def __init__(self, artefact: TokenizerArtefact) -> None:
        self.pieces = artefact.pieces
        self.control = frozenset(artefact.control)
        self.vocab_size = len(artefact.pieces)
        bos = artefact.bos_id if artefact.add_bos else None
        self._bos = [] if bos is None else [np.array([bos], np.int32)]
        self.special = _ids_by_text(artefact.pieces, artefact.control)
        self._user_defined_ids = _ids_by_text(artefact.pieces, artefact.user_defined)
        self._control_texts = _longest_first(self.special)
        self._user_defined_texts = _longest_first(self._user_defined_ids)
        self.guard = Guard(self.special)
        self._control_bytes = {text: np.int32(token).tobytes() for text, token in self.special.items()}
        # Large requests are tokenized in threads.
        self._cache: LRUCache[str, _CachedTokens] = LRUCache(MAX_CACHED_BYTES, getsizeof=attrgetter("size"))
        self._cache_lock = Lock()

    def encode_text(self, text: str) -> TokenIds:
        """Plain text: a control token's text in it becomes ordinary tokens; user-defined tokens are matched first.

        Raises InvalidRequest for text that the tokenizer cannot split within its bounds (a run of nearly a million
        spaces, say).
        """
        return _join(self._plain(_without_surrogates(text)))

    def encode_bare(self, text: str) -> TokenIds:
        """Plain text as a whole prompt, one that no template of the model made: starts with the beginning-of-sequence
        token where the model wants one. Raises InvalidRequest."""
        return _join([*self._bos, *self._plain(_without_surrogates(text))])

    def encode_prompt(self, text: str, mark: str = "") -> TokenIds:
        """What a chat template rendered: control tokens' texts become control tokens, save where `mark` breaks them
        (see Guard), which itself leaves no trace. Raises InvalidRequest."""
        parts: list[bytes] = []
        for index, part in enumerate(self._control_texts.split(_without_surrogates(text))):
            if index % 2:
                parts.append(self._control_bytes[part])
            elif part:
                parts.append(self._between(part.replace(mark, "") if mark else part).ids)
        return np.frombuffer(bytearray().join(parts), np.int32)

    @cachedmethod(attrgetter("_cache"), key=lambda _, text: text, lock=attrgetter("_cache_lock"))
    def _between(self, text: str) -> _CachedTokens:
        """Tokenize the text between two control tokens, which no token spans."""
        ids = _join(self._plain(text)).tobytes()
        return _CachedTokens(ids, 4 * len(text) + len(ids))

    def _plain(self, text: str) -> list[TokenIds]:
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
        """Text that is not empty, with no lone surrogates and nothing special to be looked for in it."""


class BytePairTokenizer(Tokenizer):
    """Byte-level BPE. As in llama.cpp, bytes that the vocabulary lacks leave nothing."""

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
        ids = self._few(text) if len(text) <= SHORT else self._many(text)
        return ids[ids >= 0] if self._lacks_bytes else ids

    def _few(self, text: str) -> TokenIds:
        """Without numpy's ways of picking, which take longer than all the rest of it."""
        return np.array([*map(self._ids.__getitem__, self._encoding.encode_ordinary(text))], np.int32)

    def _many(self, text: str) -> TokenIds:
        try:
            ranks = self._encoding.encode_to_numpy(text, disallowed_special=())
            return np.frombuffer(self._ids, np.int32)[ranks]
        except ValueError as error:
            raise InvalidRequest(f"The text cannot be tokenized: {error}", param="messages") from error


class JsonTokenizer(Tokenizer):
    """Any tokenizer that the `tokenizers` package runs."""

    def __init__(self, artefact: TokenizerArtefact) -> None:
        super().__init__(artefact)
        self._tokenizer = plain_tokenizer(artefact)

    def _encode(self, text: str) -> TokenIds:
        try:
            return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        except Exception as error:  # the package raises nothing more precise
            raise InvalidRequest(f"The text cannot be tokenized: {error}", param="messages") from error


def load_tokenizer(artefact: TokenizerArtefact) -> Tokenizer:
    """Takes about a second for a large vocabulary. Raises SettingsError for an artefact that makes no tokenizer."""
    if artefact.pattern is not None and artefact.merges is not None:
        return BytePairTokenizer(artefact)
    if artefact.tokenizer_json is not None:
        return JsonTokenizer(artefact)
    raise SettingsError("invalid tokenizer: expected BPE merges or a tokenizer.json, but got neither")


def _ids_by_text(pieces: Sequence[bytes], ids: Iterable[int]) -> dict[str, int]:
    texts = {pieces[token].decode("utf-8", "ignore"): token for token in ids}
    texts.pop("", None)
    return texts


def _longest_first(texts: Iterable[str]) -> re.Pattern[str]:
    """Its `split` gives plain text and texts by turns."""
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
    """Knows no control and no user-defined tokens, adds none, and cuts nothing off. Raises SettingsError."""
    try:
        document = msgspec.json.decode(artefact.tokenizer_json or "", type=dict[str, Any])
        ours = {*artefact.control, *artefact.user_defined}
        document["added_tokens"] = [
            token for token in document.get("added_tokens", []) if token["id"] not in ours and not token["special"]
        ]
        document |= {"post_processor": None, "truncation": None, "padding": None}
        _hide(document["model"], frozenset(artefact.control))
        return tokenizers.Tokenizer.from_str(msgspec.json.encode(document).decode())
    except Exception as error:  # the package raises nothing more precise
        raise SettingsError(f"invalid tokenizer: {error}") from error


def _hide(model: dict[str, Any], control: frozenset[int]) -> None:
    """A vocabulary may list control tokens, and some models match any text that it lists: these get a name that no
    text has."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [
            [_hidden(token) if token in control else piece, score] for token, (piece, score) in enumerate(vocabulary)
        ]
    else:
        model["vocab"] = {
            _hidden(token) if token in control and piece != model.get("unk_token") else piece: token
            for piece, token in vocabulary.items()
        }


def _hidden(token: int) -> str:
    return f"\ufdd0\ufdd1{token}"
