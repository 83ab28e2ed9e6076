"""Retry budget of a session, with exponential backoff."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

from subnet.client.timeouts import Limits
from subnet.errors import NodeBusy, NoNodeAvailable, RateLimited, SubnetError
from subnet.pool.deployment import Deployment


class Retry:
    """Retry budget of one generation; every new token restores it.

    `excluded` are the peers that have failed, and `failed_deployments` is for the leases of the request. While
    `may_queue` returns False, queue_timeout counts as 0.
    """

    def __init__(
        self, limits: Limits, clock: Callable[[], float] = monotonic, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        self.excluded: set[str] = set()
        self.failed_deployments: set[Deployment] = set()
        self._limits = limits
        self._may_queue = may_queue
        self._clock = clock
        self._failures = 0
        self._last_progress = clock()
        self._last_error: SubnetError | None = None
        self._waiting_since: float | None = None

    def close(self) -> None:
        """Drop the last error, whose traceback refers back to this object: a reference cycle otherwise."""
        self._last_error = None

    def on_progress(self) -> None:
        """Restore the whole budget, after new tokens."""
        self._waiting_since = None
        self._failures = 0
        self._last_progress = self._clock()

    def on_unavailable(self, error: NoNodeAvailable | NodeBusy) -> float:
        """Return the seconds to wait before looking for capacity again. Waiting does not use up an attempt.

        Raises `error`, or for NoNodeAvailable the last failure, if queue_timeout has passed or a rate limit lasts
        longer than the rest of it. NoNodeAvailable before the first attempt is raised at once.
        """
        now = self._clock()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        queue_timeout = self._limits.queue_timeout if self._may_queue() else 0.0
        no_node, remaining = isinstance(error, NoNodeAvailable), queue_timeout - (now - self._waiting_since)
        limited_for_longer = isinstance(error, RateLimited) and (error.retry_after or 0) > remaining
        if (no_node and self._last_error is None) or remaining < 0 or limited_for_longer:
            # The reason why the last node failed is more useful than NoNodeAvailable.
            raise self._last_error if no_node and self._last_error is not None else error
        return random.uniform(0.02, 0.06)

    def on_failure(self, error: SubnetError, peer: str) -> float:
        """Return the seconds to wait before the next attempt. Raises `error` if the budget is used up.

        The first failure is always retried at once, on another node; after that, the backoff doubles, with full jitter
        (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). NodeBusy is not counted as a
        failure; Lease.failed keeps new requests away from that node for its retry_after.
        """
        self.excluded.add(peer)
        if isinstance(error, NodeBusy):
            return 0.0
        self._failures += 1
        self._last_error = error
        limits = self._limits
        pause = random.uniform(0, min(limits.backoff_max, limits.backoff * 2 ** (self._failures - 1)))
        if self._failures == 1:
            pause = 0.0
        timed_out = self._failures > 1 and self._clock() + pause - self._last_progress > limits.retry_timeout
        if self._failures >= limits.max_attempts or timed_out:
            raise error
        return pause
