"""Retry budget of a session, with exponential backoff."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

from subnet.client.request_state import RequestState
from subnet.client.timeouts import Limits
from subnet.errors import (
    EndpointMissing,
    InterTokenTimeout,
    NodeBusy,
    NodeError,
    NodeTimeout,
    NoNodeAvailable,
    RateLimited,
    SubnetError,
)
from subnet.pool.deployment import Deployment


class Retry:
    """Retry budget of one generation. Every new token restores it, except the number of attempts in all.

    `excluded` are the peers that have failed, and `failed_deployments` is for the leases of the request. While another
    model can be asked instead, by `state`, a full model is not waited for, unless the time that it announces is short.
    """

    def __init__(
        self, limits: Limits, state: RequestState | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.excluded: set[str] = set()
        self.failed_deployments: set[Deployment] = set()
        self._limits = limits
        self._state = state or RequestState()
        self._clock = clock
        self._failures = 0
        self._stalls = 0
        self._total_failures = 0
        self._last_progress = clock()
        self._last_error: SubnetError | None = None
        self._waiting_since: float | None = None

    def close(self) -> None:
        """Drop the last error, whose traceback refers back to this object: a reference cycle otherwise."""
        self._last_error = None

    @property
    def remaining(self) -> float | None:
        """Seconds of failover_timeout that are left to deliver a new token; None before a failure."""
        if self._state.first_failure is None:
            return None
        return max(0.0, self._state.first_failure + self._limits.failover_timeout - self._clock())

    def on_progress(self) -> None:
        """Restore the budget, after new tokens."""
        self._waiting_since = None
        self._state.first_failure = None
        self._failures = self._stalls = 0
        self._last_progress = self._clock()

    def on_unavailable(self, error: NoNodeAvailable | NodeBusy) -> float:
        """Return the seconds to wait before looking for capacity again. Waiting does not use up an attempt.

        Raises `error`, or for NoNodeAvailable the last failure, if queue_timeout has passed or a rate limit lasts
        longer than the rest of it. NoNodeAvailable before the first attempt is raised at once.
        """
        now = self._clock()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        no_node, remaining = isinstance(error, NoNodeAvailable), self._waiting_since + self._longest_wait(error) - now
        limited_for_longer = isinstance(error, RateLimited) and (error.retry_after or 0) > remaining
        if (no_node and self._last_error is None) or remaining <= 0 or limited_for_longer or self.remaining == 0:
            # The reason why the last node failed is more useful than NoNodeAvailable.
            raise self._last_error if no_node and self._last_error is not None else error
        return random.uniform(0.02, 0.06)

    def on_failure(self, error: NodeError, peer: str, *, has_other: bool = True, has_begun: bool = False) -> float:
        """Return the seconds to wait before the next attempt. Raises `error` if the budget is used up, and if there is
        no other node (`has_other`) for an error that is permanent, or for a timeout if another model can be asked.

        The first failure is always retried at once, on another node; after that, the backoff doubles, with full jitter
        (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). EndpointMissing is not counted as a
        failure, and neither is NodeBusy, unless the answer had begun (`has_begun`); Lease.failed keeps new requests
        away from that node.
        """
        self.excluded.add(peer)
        if isinstance(error, EndpointMissing) or (isinstance(error, NodeBusy) and not has_begun):
            return 0.0
        now = self._clock()
        self._failures += 1
        self._total_failures += 1
        self._state.first_failure = now if self._state.first_failure is None else self._state.first_failure
        self._last_error = error
        self._stalls += isinstance(error, InterTokenTimeout)
        if not has_other and (error.permanent or self._is_hopeless(error)):
            raise error
        if self._total_failures >= self._limits.max_total_attempts or self._failures >= self._limits.max_attempts:
            raise error
        return self._pause(error, now)

    def _is_hopeless(self, error: NodeError) -> bool:
        """Return whether not to ask the only node again: for a timeout if another model can be asked, and for a second
        stall in the middle of an answer anyway.
        """
        return isinstance(error, NodeTimeout) and (self._stalls > 1 or not self._state.may_queue())

    def _pause(self, error: SubnetError, now: float) -> float:
        limits, number = self._limits, self._failures - 1
        if number == 0:
            return 0.0
        pause = random.uniform(0, min(limits.backoff_max, limits.backoff * 2**number))
        assert self.remaining is not None
        if now + pause - self._last_progress > limits.retry_timeout or pause > self.remaining:
            raise error
        return pause

    def _longest_wait(self, error: NoNodeAvailable | NodeBusy) -> float:
        """Return the seconds to wait for capacity in all."""
        if self._state.may_queue():
            return self._limits.queue_timeout
        wait = error.retry_after if isinstance(error, NodeBusy) else None
        is_short = wait is not None and wait <= self._limits.max_retry_after
        return min(self._limits.queue_timeout, self._limits.max_retry_after) if is_short else 0.0
