"""Tokenization as by the model's own tokenizer, which is loaded from the artefact that nodes provide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from threading import Lock
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache

from adapter.prompt.guard import Guard
from subnet.errors import SettingsError
from subnet.models.encoder import Encoder, ids_by_text, join, split_pattern
from subnet.models.encoder_process import ProcessEncoder
from subnet.models.encoders import load_encoder
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds

MAX_CACHED_BYTES = 8 * 2**20
"""Approximate maximum size of the texts and token ids that a tokenizer caches, as system prompts and earlier turns
recur."""

# Largest tokenizers that are loaded in this process: tiktoken and the `tokenizers` package hold the GIL while they load
# them, the latter also while it encodes, and all streams wait. These take less than 0.1 s.
_MAX_JSON = 512 * 1024
_MAX_MERGES = 64 * 1024

EncodeOnNode = Callable[[Sequence[str]], list[TokenIds]]
"""Returns the token ids of plain texts, as a node tokenizes them. Blocks. Raises InvalidRequest and NodeError."""


class _CachedTokens(NamedTuple):
    """Cache entry. `ids` is int32 data. `size`, in bytes, includes the text."""

    ids: bytes
    size: int


class Tokenizer:
    """Tokenizer of a model, which encodes lone surrogates as U+FFFD.

    `pieces[i]` has the bytes of token i. `control` has the ids of control tokens, and `special` has these ids by text.
    User text must not be encoded as control tokens: see `guard`. If it `waits`, encoding blocks until a node or
    another process has answered, may raise NodeError, and must not be called on the event loop's thread.
    """

    def __init__(self, artefact: TokenizerArtefact, encoder: Encoder) -> None:
        self.pieces = artefact.pieces
        self.control = frozenset(artefact.control)
        self.vocab_size = len(artefact.pieces)
        self.waits = encoder.waits
        bos = artefact.bos_id if artefact.add_bos else None
        self._bos = [] if bos is None else [np.array([bos], np.int32)]
        self._encoder = encoder
        self.special = ids_by_text(artefact.pieces, artefact.control)
        self._control_texts = split_pattern(self.special)
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
        return self._encoder.encode(_without_surrogates(text))

    def encode_with_bos(self, text: str) -> TokenIds:
        """Encode plain text as a complete prompt that is not from a chat template: as `encode_text`, after the
        beginning-of-sequence token if the model requires one. Raises InvalidRequest.
        """
        return join([*self._bos, self.encode_text(text)])

    def encode_prompt(self, text: str, mark: str = "") -> TokenIds:
        """Encode the output of a chat template: texts of control tokens become control tokens, unless `mark` breaks
        them up (see Guard). The mark itself is removed. Raises InvalidRequest.
        """
        parts = self._control_texts.split(_without_surrogates(text))
        encoded = self._encode_segments([part.replace(mark, "") if mark else part for part in parts[::2]])
        found = bytearray(encoded[0])
        for control, ids in zip(parts[1::2], encoded[1:], strict=True):
            found += self._control_bytes[control]
            found += ids
        return np.frombuffer(found, np.int32)

    def _encode_segments(self, texts: Sequence[str]) -> list[bytes]:
        """Encode the texts between control tokens. They can be cached, as no token spans a control token."""
        with self._cache_lock:
            found = {text: self._cache[text].ids for text in texts if text in self._cache}
        missing = [text for text in dict.fromkeys(texts) if text and text not in found]
        if missing:
            encoded = self._encoder.encode_all(missing)
            found |= {text: ids.tobytes() for text, ids in zip(missing, encoded, strict=True)}
            self._remember({text: found[text] for text in missing})
        return [found.get(text, b"") for text in texts]

    def _remember(self, encoded: dict[str, bytes]) -> None:
        for text, ids in encoded.items():
            size = 4 * len(text) + len(ids)
            if size <= MAX_CACHED_BYTES:
                with self._cache_lock:
                    self._cache[text] = _CachedTokens(ids, size)


class NodeEncoder(Encoder):
    """Encoder that asks a node, whose engine matches user-defined tokens itself.

    llama.cpp counts some control tokens of gpt-oss among these. Their texts are divided, so that they stay text.
    """

    waits = True

    def __init__(self, artefact: TokenizerArtefact, encode_on_node: EncodeOnNode) -> None:
        self._encode_on_node = encode_on_node
        self._control = frozenset(artefact.control)
        self._control_texts = split_pattern(ids_by_text(artefact.pieces, artefact.control))

    def encode(self, text: str) -> TokenIds:
        return self.encode_all([text])[0] if text else join([])

    def encode_all(self, texts: Sequence[str]) -> list[TokenIds]:
        found = self._encode_on_node(texts)
        return [
            ids if self._control.isdisjoint(ids.tolist()) else self._encode_divided(text)
            for text, ids in zip(texts, found, strict=True)
        ]

    def _encode_divided(self, text: str) -> TokenIds:
        cuts = [0, *(match.start() + 1 for match in self._control_texts.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in pairwise(cuts) if start < end]
        ids = join(self._encode_on_node(parts))
        return ids[[token not in self._control for token in ids.tolist()]]


def load_tokenizer(
    artefact: TokenizerArtefact, encode_on_node: EncodeOnNode | None = None, *, busy: bool = False
) -> Tokenizer:
    """Create a tokenizer from its artefact. Takes seconds for a large vocabulary.

    `encode_on_node` is needed for artefacts that are tokenized `on_node`. If this process is `busy` with answers, or
    the encoder would stop its other threads often, it runs in a child process. Raises SettingsError for an invalid
    artefact.
    """
    if artefact.on_node:
        if encode_on_node is None:
            raise SettingsError("invalid tokenizer: only a node can tokenize for this model")
        return Tokenizer(artefact, NodeEncoder(artefact, encode_on_node))
    if len(artefact.tokenizer_json or "") > _MAX_JSON or (busy and len(artefact.merges or ()) > _MAX_MERGES):
        return Tokenizer(artefact, ProcessEncoder(artefact))
    return Tokenizer(artefact, load_encoder(artefact))


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
