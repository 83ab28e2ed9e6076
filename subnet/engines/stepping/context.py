"""What a stepper needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Row = tuple[int, int, int, bool]
"""One token of a batch: token id, position, sequence, and whether its logits are wanted."""


class Context(Protocol):
    """Room for sequences of tokens, numbered from 0, that are read once and remembered. For the stepping thread."""

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        """Read the rows, which are in order within each sequence. For each sequence that asked for logits, those after
        its last row: float32, shape (vocab,), valid until the next decode. Raises EngineFailed."""

    def keep(self, sequence: int, length: int) -> int:
        """Forget all of the sequence beyond its first `length` tokens. Gives how many are left: `length`, or 0 where
        the model's kind of memory cannot forget in part."""

    def copy(self, source: int, target: int) -> None:
        """Make `target` a copy of all of `source`."""
