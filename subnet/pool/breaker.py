"""Circuit breaker: keeps requests away from a node that fails."""

from __future__ import annotations

from collections import deque
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Circuit breaker of one node.

    closed -> open -> half-open, where one trial request is allowed -> closed, or open again.

    Opens after `threshold` consecutive failures, or when the share `failure_rate` of the last `window` requests failed,
    once there are at least `min_requests` of them. Stays open for `cooldown` seconds, doubled up to `cooldown_max` each
    time a trial request fails.

    `on_start` returns the breaker's epoch, which the reports of that request pass back. Each opening starts a new
    epoch; reports from an earlier epoch are ignored, since they say nothing about the node's present state.

    The breaker has no clock: `now` is any monotonic time in seconds.
    """

    def __init__(
        self,
        threshold: int = 3,
        *,
        failure_rate: float = 0.5,
        window: int = 20,
        min_requests: int = 10,
        cooldown: float = 1.0,
        cooldown_max: float = 8.0,
    ) -> None:
        self.reason = ""
        self._threshold = threshold
        self._failure_rate = failure_rate
        self._min_requests = min_requests
        self._outcomes: deque[bool] = deque(maxlen=window)
        self._consecutive_failures = 0
        self._initial_cooldown = self._cooldown = cooldown
        self._cooldown_max = cooldown_max
        self._open_until: float | None = None
        self._trial_running = False
        self._epoch = 0

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def allows(self, now: float) -> bool:
        """Return whether a request may be sent now."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._trial_running)

    def remaining_cooldown(self, now: float) -> float:
        """Return the seconds until the breaker is half-open; 0 unless it is open."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def on_start(self, now: float) -> int:
        """Record that a request which `allows` permitted is sent; return the epoch for its reports."""
        self._trial_running = self.state(now) == "half-open"
        return self._epoch

    def on_first_token(self, epoch: int) -> None:
        """Close the breaker: the first token of a trial request is enough, however long its answer will be."""
        if epoch == self._epoch:
            self._open_until = None
            self._trial_running = False

    def on_success(self, epoch: int) -> None:
        """Close the breaker, and reset the cooldown and the consecutive failures."""
        if epoch != self._epoch:
            return
        self.on_first_token(epoch)
        self._cooldown = self._initial_cooldown
        self._consecutive_failures = 0
        self._outcomes.append(True)

    def on_failure(self, epoch: int, now: float) -> None:
        """Record a failure, which may open the breaker, and opens it again if the trial request failed."""
        if epoch != self._epoch:
            return
        if self._open_until is not None:
            self._cooldown = min(self._cooldown_max, self._cooldown * 2)
            self._open(now, "the trial request failed")
            return
        self._consecutive_failures += 1
        self._outcomes.append(False)
        failures, total = self._outcomes.count(False), len(self._outcomes)
        if self._consecutive_failures >= self._threshold:
            self._open(now, f"{self._consecutive_failures} consecutive failures")
        elif total >= self._min_requests and failures >= self._failure_rate * total:
            self._open(now, f"{failures} of the last {total} requests failed")

    def on_abandoned(self, epoch: int) -> None:
        """Record that a request ended without an outcome; if it was the trial request, another one is allowed."""
        if epoch == self._epoch:
            self._trial_running = False

    def on_restart(self, now: float) -> None:
        """End the cooldown: the node has restarted, so a trial request is allowed at once."""
        if self._open_until is not None:
            self._open_until = now

    def _open(self, now: float, reason: str) -> None:
        self.reason = reason
        self._epoch += 1
        self._open_until = now + self._cooldown
        self._trial_running = False
        self._consecutive_failures = 0
        self._outcomes.clear()
