"""How much of the prompts that are being read goes into a step, and how they share it."""

from __future__ import annotations

from collections.abc import Sequence

MOST_ROWS = 32
_LEAST_ROWS = 4
_STEP_SECONDS = 0.08


class Pace:
    """How many rows of prompts make a step of about 80 ms. Longer ones read 10 % faster (32 rows, 0.4 s), but nothing
    can be cancelled, or drawn for the other choices, before a step ends."""

    def __init__(self) -> None:
        self._row_seconds = 0.01

    def rows(self) -> int:
        return max(_LEAST_ROWS, min(MOST_ROWS, int(_STEP_SECONDS / self._row_seconds)))

    def took(self, rows: int, seconds: float) -> None:
        # Steps of few rows say more of the fixed cost of a step than of that of a row.
        if rows >= _LEAST_ROWS:
            self._row_seconds += 0.2 * (seconds / rows - self._row_seconds)


def share(rows: int, unread: Sequence[int]) -> list[int]:
    """Share `rows` among prompts that lack `unread` tokens each, oldest first.

    A quarter is the oldest's, so that each prompt's turn comes. The rest goes to those that lack least: a short prompt
    need not wait for long ones.
    """
    shares = [0] * len(unread)
    if unread:
        shares[0] = min(unread[0], rows // 4)
    left = rows - sum(shares)
    for index in sorted(range(len(unread)), key=unread.__getitem__):
        more = min(unread[index] - shares[index], left)
        shares[index] += more
        left -= more
    return shares
