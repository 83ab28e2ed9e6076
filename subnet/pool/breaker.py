"""Keeps requests away from a node that fails."""

from __future__ import annotations

from collections import deque
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """closed -> open -> half-open, where one request is let through as a probe -> closed, or open again.

    Opens after `threshold` failures in a row, or when of the last `window` requests, and at least `least` of them,
    the share `rate` failed. It stays open for `cooldown` seconds, doubled up to `cooldown_max` each time the probe
    fails.

    Every request has a ticket, from `on_start`, with which its end is told. A request that started before the
    breaker opened says nothing of the node now, so that what is told of it changes nothing.
    Plain state, no clock: `now` is any monotonic time in seconds.
    """

    def __init__(
        self,
        threshold: int = 3,
        *,
        rate: float = 0.5,
        window: int = 20,
        least: int = 10,
        cooldown: float = 1.0,
        cooldown_max: float = 8.0,
    ) -> None:
        self.reason = ""
        self._threshold = threshold
        self._rate = rate
        self._least = least
        self._outcomes: deque[bool] = deque(maxlen=window)
        self._in_a_row = 0
        self._first_cooldown = self._cooldown = cooldown
        self._cooldown_max = cooldown_max
        self._open_until: float | None = None
        self._probing = False
        self._openings = 0

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def allows(self, now: float) -> bool:
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._probing)

    def wait(self, now: float) -> float:
        """Seconds until it is half-open; 0 when it is not open."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def on_start(self, now: float) -> int:
        """A request that `allows` let through is sent; its ticket."""
        self._probing = self.state(now) == "half-open"
        return self._openings

    def on_answer(self, ticket: int) -> None:
        """The first token came: a probe has shown enough, however long its answer will be."""
        if ticket == self._openings:
            self._open_until = None
            self._probing = False

    def on_success(self, ticket: int) -> None:
        if ticket != self._openings:
            return
        self.on_answer(ticket)
        self._cooldown = self._first_cooldown
        self._in_a_row = 0
        self._outcomes.append(True)

    def on_failure(self, ticket: int, now: float) -> None:
        if ticket != self._openings:
            return
        if self._open_until is not None:
            self._cooldown = min(self._cooldown_max, self._cooldown * 2)
            self._open(now, "the trial request failed")
            return
        self._in_a_row += 1
        self._outcomes.append(False)
        failures, of = self._outcomes.count(False), len(self._outcomes)
        if self._in_a_row >= self._threshold:
            self._open(now, f"{self._in_a_row} consecutive failures")
        elif of >= self._least and failures >= self._rate * of:
            self._open(now, f"{failures} of the last {of} requests failed")

    def on_abandoned(self, ticket: int) -> None:
        """A request ended without saying anything of the node: if it was the probe, its place is free again."""
        if ticket == self._openings:
            self._probing = False

    def on_return(self, now: float) -> None:
        """The node was started anew: it need not wait for its probe."""
        if self._open_until is not None:
            self._open_until = min(self._open_until, now)

    def _open(self, now: float, reason: str) -> None:
        self.reason = reason
        self._openings += 1
        self._open_until = now + self._cooldown
        self._probing = False
        self._in_a_row = 0
        self._outcomes.clear()
