"""When a second node is asked because the first is later than usual."""

from __future__ import annotations

from collections import deque
from math import ceil

# Fewer first tokens than this say nothing of how late they usually are.
_LEAST = 20
_WINDOW = 200


class Hedger:
    """Shared by the sessions of a gateway. Off while `quantile` is 0.

    A second node is asked when the first token is later than `quantile` (0.95: than 95 of 100) of recent ones, for
    at most the `share` of requests.
    """

    def __init__(self, quantile: float = 0.0, share: float = 0.1) -> None:
        self._quantile = quantile
        self._share = share
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._hedges: deque[bool] = deque(maxlen=_WINDOW)

    def delay(self) -> float | None:
        """Seconds after which a second node may be asked for a request that starts now; None for never."""
        if not self._quantile:
            return None
        self._hedges.append(False)
        if len(self._recent) < _LEAST:
            return None
        return sorted(self._recent)[ceil(self._quantile * len(self._recent)) - 1]

    def answered(self, seconds: float) -> None:
        """So long after its start a request had its first token."""
        if self._quantile:
            self._recent.append(seconds)

    def spend(self) -> bool:
        """Whether one more second node may be asked; if so, it is counted."""
        if self._hedges.count(True) + 1 > self._share * len(self._hedges):
            return False
        self._hedges.append(True)
        return True
