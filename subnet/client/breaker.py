"""Keeps requests away from a node that fails."""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """closed -> open after `threshold` failures in a row -> half-open after a cooldown, with one probe -> closed.

    The cooldown starts at `cooldown` seconds and doubles, up to `cooldown_max`, each time the probe fails.
    Plain state, no clock: `now` is any monotonic time in seconds.
    """

    def __init__(self, threshold: int = 3, cooldown: float = 1.0, cooldown_max: float = 30.0) -> None:
        self._threshold = threshold
        self._first_cooldown = self._cooldown = cooldown
        self._cooldown_max = cooldown_max
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def allows(self, now: float) -> bool:
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._probing)

    def on_start(self, now: float) -> None:
        """A request is sent: in the half-open state it is the probe."""
        self._probing = self.state(now) == "half-open"

    def on_success(self) -> None:
        self._failures = 0
        self._open_until = None
        self._probing = False
        self._cooldown = self._first_cooldown

    def on_failure(self, now: float) -> None:
        self._failures += 1
        if self._open_until is None:
            if self._failures >= self._threshold:
                self._open_until = now + self._cooldown
        elif now >= self._open_until:
            self._cooldown = min(self._cooldown_max, self._cooldown * 2)
            self._open_until = now + self._cooldown
        self._probing = False

    def on_abandoned(self) -> None:
        """A request ended without saying anything of the node: the probe, if it was one, is free again."""
        self._probing = False
