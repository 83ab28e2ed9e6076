"""Whether to try again, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

from subnet.client.timeouts import Limits
from subnet.errors import NodeBusy, NoNodeAvailable, RateLimited, SubnetError


class Retry:
    """The attempts of one session. Any new token makes the budget whole again. While it is not `may_queue`, it does not
    wait.
    """

    def __init__(
        self, limits: Limits, clock: Callable[[], float] = monotonic, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        self.excluded: set[str] = set()
        self._limits = limits
        self._may_queue = may_queue
        self._clock = clock
        self._failures = 0
        self._since = clock()
        self._cause: SubnetError | None = None
        self._waiting_since: float | None = None

    def over(self) -> None:
        """Forget why: an error holds the frames that it was raised through, and they hold this, a cycle."""
        self._cause = None

    def progressed(self) -> None:
        """A new token came, now or just before: how long the answer took until then does not count."""
        self._waiting_since = None
        self._failures = 0
        self._since = self._clock()

    def waited(self, error: NoNodeAvailable | NodeBusy) -> float:
        """How long to wait for a node to come back, or for room on one, before looking again; waiting is no attempt.

        Raises when `queue_timeout` is over, or would be, and at once when no node is there and none was asked yet: then
        the client had better come again.
        """
        now = self._clock()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        queue_timeout = self._limits.queue_timeout if self._may_queue() else 0.0
        alone, left = isinstance(error, NoNodeAvailable), queue_timeout - (now - self._waiting_since)
        longer = isinstance(error, RateLimited) and (error.retry_after or 0) > left
        if (alone and self._cause is None) or left < 0 or longer:
            # Why the nodes are out says more than that they are.
            raise self._cause if alone and self._cause is not None else error
        return random.uniform(0.02, 0.06)

    def failed(self, error: SubnetError, peer: str) -> float:
        """How long to wait before the next attempt, in seconds. Raises `error` when there shall be none.

        The first failure is retried at once, on another node, however late it was noticed; then backoff doubles, with
        full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A node that refused for
        want of room was not tried: that is no failure, and its Retry-After keeps others from asking it, see
        Lease.failed.
        """
        self.excluded.add(peer)
        if isinstance(error, NodeBusy):
            return 0.0
        self._failures += 1
        self._cause = error
        limits = self._limits
        pause = random.uniform(0, min(limits.backoff_max, limits.backoff * 2 ** (self._failures - 1)))
        if self._failures == 1:
            pause = 0.0
        late = self._failures > 1 and self._clock() + pause - self._since > limits.retry_timeout
        if self._failures >= limits.max_attempts or late:
            raise error
        return pause
