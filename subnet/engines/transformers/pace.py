"""How much of a prompt a model on torch reads at once."""

from __future__ import annotations

from subnet.engines.stepping.prefill import Pace

FIRST = 16
"""Tokens of the first piece, before anything is known."""

_LEAST, _MOST = 4, 512
_SECONDS = 0.08
_TIMES = 4


class PassPace(Pace):
    """A pass through the model costs much, however few its tokens: all weights are read. A piece of a prompt takes as
    long as four passes of one token, or 80 ms where that is more. Read in shorter pieces, prompts take up to many times
    as long; with longer ones, the other choices wait too long for their next token, and a cancellation for its effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self._one: float | None = None
        self._each: float | None = None

    def rows(self) -> int:
        if self._one is None or self._each is None:
            return FIRST
        spare = max(_SECONDS, _TIMES * self._one) - self._one
        return max(_LEAST, min(_MOST, int(spare / self._each)))

    def took(self, rows: int, seconds: float) -> None:
        """Steps are of several passes, and say little: see `passed`."""

    def passed(self, rows: int, seconds: float) -> None:
        """One pass has read so many tokens of one sequence."""
        if rows == 1:
            self._one = _nearer(self._one, seconds)
        elif rows >= _LEAST and self._one is not None:
            self._each = _nearer(self._each, max(seconds - self._one, 1e-6) / (rows - 1))


def _nearer(known: float | None, found: float) -> float:
    return found if known is None else known + 0.2 * (found - known)
