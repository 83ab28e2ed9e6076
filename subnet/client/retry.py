"""Whether to try again, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

from subnet.client.limits import Limits
from subnet.errors import NoNodeAvailable, SubnetError


class Retry:
    """The attempts of one session. Any new token makes the budget whole again."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self.excluded: set[str] = set()
        self._limits = limits
        self._clock = clock
        self._failures = 0
        self._since = clock()
        self._cause: SubnetError | None = None
        self._alone_since: float | None = None

    def progressed(self) -> None:
        if self._failures:
            self._failures, self._alone_since = 0, None
            self._since = self._clock()

    def waited(self, error: NoNodeAvailable) -> float:
        """How long to wait for a node to come back before looking again. Raises when patience is at its end, or when
        no node has been asked yet: then the client had better come again.
        """
        if self._cause is None:
            raise error
        now = self._clock()
        self._alone_since = self._alone_since or now
        if now - self._alone_since > self._limits.patience:
            # Why the nodes are out says more than that they are.
            raise self._cause
        return 0.02

    def failed(self, error: SubnetError, peer: str | None = None) -> float:
        """How long to wait before the next attempt, in seconds. Raises `error` when there shall be none.

        The first failure is retried at once, on another node; then backoff doubles, with full jitter
        (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A `retry_after` that the
        error carries is obeyed only when no other node is left to ask, that is, when `peer` is None.
        """
        self._failures += 1
        if peer is not None:
            self.excluded.add(peer)
            self._cause = error
        limits = self._limits
        pause = random.uniform(0, min(limits.backoff_max, limits.backoff * 2 ** (self._failures - 1)))
        if peer is not None and self._failures == 1:
            pause = 0.0
        if peer is None and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if self._failures >= limits.attempts or self._clock() + pause - self._since > limits.total:
            raise error
        return pause
