"""Interface between the stepper and a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Row = tuple[int, int, int, bool]
"""One token of a batch: token id, position, sequence, and whether its logits are needed."""


class Context(Protocol):
    """KV cache of a model for a fixed number of sequences, numbered from 0. Used by the stepping thread only.

    Results depend on the shape of the batch, so that of every batch is fixed. Prompts are decoded in pieces that end at
    multiples of `piece_length` tokens, each piece alone in its batch. All other batches have up to `max_rows` rows of
    one sequence, or one row each of up to `max_sequences` sequences; if the engine is exact, each row's result is the
    same in all of them.
    """

    piece_length: int
    max_rows: int
    max_sequences: int

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        """Decode the rows, which are in order within each sequence.

        Return, for each sequence with a row that needs logits, the logits after its last row: float32, shape (vocab,),
        valid until the next call. Raises EngineFailed.
        """

    def truncate(self, sequence: int, length: int) -> int:
        """Remove all tokens of the sequence after the first `length`.

        Return the number of tokens left: `length`, or 0 if the model's cache cannot be truncated in part.
        """

    def copy(self, source: int, target: int) -> None:
        """Replace the sequence `target` by a copy of `source`."""
