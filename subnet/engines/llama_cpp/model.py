"""Object wrappers of llama.cpp's models and contexts, which must be closed explicitly."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subnet.engines.llama_cpp import native
from subnet.engines.llama_cpp.header import LLAMA_POOLING_TYPE_LAST, LLAMA_POOLING_TYPE_NONE
from subnet.engines.stepping import Context, Row
from subnet.errors import EngineFailed, SettingsError

# Bytes of most tokens; a longer one is asked for twice.
_MAX_PIECE = 64

MAX_ROWS = 8
"""Maximum number of rows of a batch that is not a piece of a prompt."""

# Tokens in a piece of a prompt, by the size of the weights in bytes. From 64 rows of a sequence on, llama.cpp has a
# faster kernel for attention: 3,000 tokens cost half as much as in pieces of 32, 7 % more than in pieces of 512. With
# larger models a piece takes longer, and running answers wait for it. The same for a file on all machines, because
# results depend on the cuts.
_PIECE_LENGTHS = ((1 << 30, 64), (4 << 30, 32))
_MIN_PIECE_LENGTH = 16


class NativeModel:
    """Loaded GGUF file; with `vocab_only`, without weights. Loading blocks. Raises SettingsError if it fails.

    `piece_length` is the number of tokens in a piece of a prompt.
    """

    def __init__(self, path: Path, vocab_only: bool = False) -> None:
        self.library = native.load_library()
        params = self.library.llama_model_default_params()
        params.vocab_only = vocab_only
        self.handle = self.library.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise SettingsError(f"llama.cpp cannot load {path}: {native.log.pop_errors()}")
        self.vocab = self.library.llama_model_get_vocab(self.handle)
        self.vocab_size: int = self.library.llama_vocab_n_tokens(self.vocab)
        self.dimensions: int = self.library.llama_model_n_embd_out(self.handle)
        size = self.library.llama_model_size(self.handle)
        self.piece_length = next((length for limit, length in _PIECE_LENGTHS if size <= limit), _MIN_PIECE_LENGTH)

    @functools.cached_property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end generation."""
        return frozenset(t for t in range(self.vocab_size) if self.library.llama_vocab_is_eog(self.vocab, t))

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Return the token ids of the text, without a BOS token.

        With `parse_special`, the text of a control token becomes that token.
        """
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.library.llama_tokenize(self.vocab, data, len(data), ids, len(ids), False, parse_special)
        return ids[:count]

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; for control tokens, those of its text."""
        size = _MAX_PIECE
        while True:
            data = ctypes.create_string_buffer(size)
            count: int = self.library.llama_token_to_piece(self.vocab, token, data, size, 0, True)
            if count >= 0:
                return data.raw[:count]
            size = -count

    def close(self) -> None:
        self.library.llama_model_free(self.handle)
        self.handle = None


class NativeContext(Context):
    """KV cache for `sequences` sequences of `length` tokens each.

    `max_rows` is the number of rows of a batch for which the model's results are known to be the same as for one row.
    Each sequence has its own buffer, so that its logits do not depend on the contents of the others. With
    `with_hidden_states`, the hidden states of the last layer are available besides the logits. Raises EngineFailed if
    there is not enough memory.
    """

    def __init__(
        self,
        model: NativeModel,
        sequences: int,
        length: int,
        threads: int,
        *,
        max_rows: int = 1,
        with_hidden_states: bool = False,
    ) -> None:
        self._library = model.library
        self._vocab_size = model.vocab_size
        self._dimensions = model.dimensions
        # Several threads share the attention of a single row, which changes its sum. They do not with two rows.
        self._has_twins = threads > 1 and max_rows > 1
        self.piece_length = model.piece_length
        self.max_rows = max_rows
        self.max_sequences = max_rows // 2 if self._has_twins else max_rows
        batch_size = max(self.piece_length, max_rows)
        params = self._library.llama_context_default_params()
        params.n_ctx = length * sequences
        params.n_batch = batch_size
        params.n_ubatch = batch_size
        params.n_seq_max = sequences
        params.n_threads = threads
        params.n_threads_batch = threads
        if with_hidden_states:
            params.pooling_type = LLAMA_POOLING_TYPE_NONE
        self._handle = self._library.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise EngineFailed(
                f"llama.cpp cannot create a context of {sequences} x {length} tokens: {native.log.pop_errors()}"
            )
        self._library.llama_set_embeddings(self._handle, with_hidden_states)
        self._memory = self._library.llama_get_memory(self._handle)
        self._batch = self._library.llama_batch_init(batch_size, 0, 1)

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        """Decode a batch and return, for each sequence with a row that needs logits, those after its last such row.

        The logits are a view: float32, shape (vocab,), valid until the next decode. Raises EngineFailed.
        """
        twins = self._twins(rows)
        self._decode_batch([row for pair in zip(rows, twins, strict=True) for row in pair] if twins else rows)
        for _, position, sequence, _ in twins:
            self.truncate(sequence, position)
        step = 2 if twins else 1
        return {sequence: self.logits(index * step) for index, (_, _, sequence, wanted) in enumerate(rows) if wanted}

    def _twins(self, rows: Sequence[Row]) -> list[Row]:
        """Return a second row for each sequence, behind its first one, if each has one row only and there must be two.

        It has no influence on the first one.
        """
        if not self._has_twins or len({sequence for _, _, sequence, _ in rows}) < len(rows):
            return []
        return [(token, position + 1, sequence, False) for token, position, sequence, _ in rows]

    def _decode_batch(self, rows: Sequence[Row]) -> None:
        batch = self._batch
        for index, (token, position, sequence, needs_logits) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = needs_logits
        batch.n_tokens = len(rows)
        status = self._library.llama_decode(self._handle, batch)
        if status != 0:
            raise EngineFailed(f"llama_decode failed with status {status}: {native.log.pop_errors()}")

    @property
    def pools_last_token(self) -> bool:
        """True if the model's embedding of a text is the hidden state of its last token, by the file's metadata."""
        pooling: int = self._library.llama_pooling_type(self._handle)
        return pooling == LLAMA_POOLING_TYPE_LAST

    def logits(self, index: int) -> NDArray[np.float32]:
        """Return the logits of row `index` of the last batch, which must need logits, as `decode` does."""
        pointer = self._library.llama_get_logits_ith(self._handle, index)
        if not pointer:
            raise EngineFailed("llama.cpp returned no logits for a token that needs them")
        return np.ctypeslib.as_array(pointer, (self._vocab_size,))

    def hidden_state(self, index: int) -> NDArray[np.float32]:
        """Return the hidden state of row `index` of the last batch, which must need logits.

        It is float32, shape (dimensions,), and valid until the next decode. Raises EngineFailed.
        """
        pointer = self._library.llama_get_embeddings_ith(self._handle, index)
        if not pointer:
            raise EngineFailed("llama.cpp returned no hidden state for a token that needs it")
        return np.ctypeslib.as_array(pointer, (self._dimensions,))

    def truncate(self, sequence: int, length: int) -> int:
        """Remove all tokens of the sequence after the first `length`.

        Return the number of tokens left: `length`, or 0 if the model's cache cannot be truncated in part.
        """
        if self._library.llama_memory_seq_rm(self._memory, sequence, length, -1):
            return length
        self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def copy(self, source: int, target: int) -> None:
        """Replace the sequence `target` by a copy of `source`."""
        self._library.llama_memory_seq_rm(self._memory, target, -1, -1)
        self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def close(self) -> None:
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self._handle)
        self._handle = None
