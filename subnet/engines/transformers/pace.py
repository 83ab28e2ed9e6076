"""Number of prompt tokens per forward pass of a model on torch."""

from __future__ import annotations

from subnet.engines.stepping.prefill import Pace

INITIAL_ROWS = 16
"""Tokens in a piece before any pass has been measured."""

_MIN_ROWS, _MAX_ROWS = 4, 512
_MIN_PIECE_SECONDS = 0.08
_PASSES_PER_PIECE = 4


class PassPace(Pace):
    """Limits a piece of a prompt to the time of four passes of one token, or to 80 ms if that is longer.

    Every pass has a high fixed cost, because it reads all weights. Shorter pieces would make prompts many times slower.
    Longer ones would delay the other choices and cancellations.
    """

    def __init__(self) -> None:
        super().__init__()
        self._token_pass_seconds: float | None = None
        self._seconds_per_token: float | None = None

    def rows(self) -> int:
        if self._token_pass_seconds is None or self._seconds_per_token is None:
            return INITIAL_ROWS
        spare = max(_MIN_PIECE_SECONDS, _PASSES_PER_PIECE * self._token_pass_seconds) - self._token_pass_seconds
        return max(_MIN_ROWS, min(_MAX_ROWS, int(spare / self._seconds_per_token)))

    def record(self, rows: int, seconds: float) -> None:
        """Ignore the time of a step, which consists of several passes; see `record_pass`."""

    def record_pass(self, rows: int, seconds: float) -> None:
        """Record that a pass of `rows` tokens of one sequence took `seconds`."""
        if rows == 1:
            self._token_pass_seconds = _smooth(self._token_pass_seconds, seconds)
        elif rows >= _MIN_ROWS and self._token_pass_seconds is not None:
            self._seconds_per_token = _smooth(
                self._seconds_per_token, max(seconds - self._token_pass_seconds, 1e-6) / (rows - 1)
            )


def _smooth(average: float | None, sample: float) -> float:
    """Return the exponential moving average updated by `sample`."""
    return sample if average is None else average + 0.2 * (sample - average)
