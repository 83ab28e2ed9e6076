"""Order of batches: how pieces of prompts and single tokens of running answers take turns."""

from __future__ import annotations

from collections.abc import Sequence

# A piece of a prompt may take half a second. After it, running answers get this share of its time.
_ROWS_SHARE = 1 / 3
# Of this many pieces, one is of the oldest prompt.
_OLDEST_EVERY = 4


class Turns:
    """Decides what the next batch is. Times are in seconds.

    The order of batches has no influence on their results, so it may follow the clock.
    """

    def __init__(self) -> None:
        self._owed = 0.0
        self._pieces = 0

    def is_piece_next(self, *, pieces: bool, rows: bool) -> bool:
        """Return whether a piece is next, where there are `pieces` of prompts and `rows` of running answers."""
        return pieces and not (rows and self._owed > 0)

    def record_piece(self, seconds: float) -> None:
        self._owed = seconds * _ROWS_SHARE

    def record_rows(self, seconds: float) -> None:
        self._owed -= seconds

    def pick_prompt(self, pending: Sequence[int]) -> int:
        """Return the index of the prompt whose piece is next, among prompts with `pending` tokens each, oldest first.

        It is the one with the fewest, so that a short prompt does not wait for long ones; and now and then the oldest,
        so that none starves.
        """
        self._pieces += 1
        return 0 if self._pieces % _OLDEST_EVERY == 0 else min(range(len(pending)), key=pending.__getitem__)
