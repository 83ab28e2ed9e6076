"""Measurement of how many rows a batch may have for a model's results to be the same, bit by bit, as for one row.

It is a property of the file: for some types of quantization llama.cpp has kernels for several rows that round in
another way. Nothing tells which, so it is tried once for each file, and the result is kept on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subnet.artefact_cache import replace_file
from subnet.engines.llama_cpp.header import BINDING
from subnet.engines.llama_cpp.model import MAX_ROWS, NativeContext, NativeModel

# To be changed with this file or with what a context does, so that all models are measured anew.
_VERSION = 1
# Beyond 256 tokens, several threads share the attention of a single row.
_PREFIX = 256
# Rounding seldom differs in every row: where batches of four differ, it was in two rows of three.
_TOKENS = 48

logger = logging.getLogger(__name__)


def exact_rows(model: NativeModel, threads: int, weights: str) -> int:
    """Return the largest number of rows of a batch for which results are bitwise equal to those for one row and thread.

    At most MAX_ROWS; 0 if results are not even repeatable, or depend on `threads`. It takes about as long as reading a
    prompt of 1,000 tokens, and is kept on disk for later calls with the same fingerprint `weights`, unless that is "".
    """
    path = _cache_folder() / _key(weights, threads)
    if weights:
        with contextlib.suppress(OSError, ValueError):
            return min(MAX_ROWS, max(0, int(path.read_text())))
    rows = _measure(model, threads)
    logger.info("the model's results are the same for up to %d rows at once", rows)
    if weights:
        # Without the file, it is measured again.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, str(rows).encode())
    return rows


def _cache_folder() -> Path:
    """Return the folder of the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "subnet-adapter" / "exact-rows"


def _key(weights: str, threads: int) -> str:
    """Return a digest of everything that the result depends on; kernels are chosen by what the processor can do."""
    facts = [str(_VERSION), BINDING.version, weights, str(threads), platform.machine()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def _measure(model: NativeModel, threads: int) -> int:
    with contextlib.closing(_Probe(model, 1)) as probe:
        expected = probe.decode(1)
        if not probe.rewind():
            # Tokens are decoded one by one, which several threads do in another way than one, see NativeContext.
            return 1 if threads == 1 and probe.decode(1) == expected else 0
        if threads == 1:
            return _largest_equal(probe, expected)
    with contextlib.closing(_Probe(model, threads)) as probe:
        rows = _largest_equal(probe, expected)
    return rows if rows > 1 else 0


def _largest_equal(probe: _Probe, expected: list[bytes]) -> int:
    """Return the largest number of rows up to which all numbers give the expected results."""
    rows = 0
    while rows < MAX_ROWS and probe.decode(rows + 1) == expected:
        rows += 1
    # With fewer rows in each, several threads would need a second row for each sequence.
    if rows > 3 and probe.decode_beside(rows // 2) != expected:
        return 1
    return rows


class _Probe:
    """Context with fixed tokens in two sequences. Results are returned as one digest of the logits of each token."""

    def __init__(self, model: NativeModel, threads: int) -> None:
        self._context = NativeContext(model, 2, _PREFIX + _TOKENS + 1, threads, max_rows=MAX_ROWS)
        # Spread over the vocabulary.
        count = _PREFIX + _TOKENS
        self._tokens = [(number * 7919 + 13) % model.vocab_size for number in range(count)]
        self._read_prefix()

    def close(self) -> None:
        self._context.close()

    def decode(self, rows: int) -> list[bytes]:
        """Return the results where the tokens are decoded `rows` at a time."""
        self.rewind()
        return self._decode(rows, [0])

    def decode_beside(self, rows: int) -> list[bytes]:
        """Return the results where each batch also has as many tokens of the other sequence."""
        self.rewind()
        self._context.copy(0, 1)
        return self._decode(rows, [0, 1])

    def _decode(self, rows: int, sequences: Sequence[int]) -> list[bytes]:
        found: list[bytes] = []
        end = len(self._tokens)
        for start in range(_PREFIX, end, rows):
            positions = range(start, min(start + rows, end))
            batch = [(self._tokens[at], at, sequence, True) for sequence in sequences for at in positions]
            logits = self._context.decode(batch)
            if len(positions) == 1:
                found.append(_digest(logits[sequences[-1]]))
            else:
                found += (_digest(self._context.logits(row)) for row in range(len(batch))[-len(positions) :])
        return found

    def rewind(self) -> bool:
        """Go back to the end of the prefix. Return False if it had to be decoded again, see `Context.truncate`."""
        if self._context.truncate(0, _PREFIX) == _PREFIX:
            return True
        self._read_prefix()
        return False

    def _read_prefix(self) -> None:
        """Decode the prefix as a prompt."""
        self._context.truncate(0, 0)
        piece = self._context.piece_length
        for start in range(0, _PREFIX, piece):
            self._context.decode([(self._tokens[at], at, 0, False) for at in range(start, start + piece)])


def _digest(logits: NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(logits.tobytes(), digest_size=16).digest()
