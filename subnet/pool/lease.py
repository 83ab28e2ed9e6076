"""One request's slot on one node."""

from __future__ import annotations

import logging
from collections.abc import Callable

from subnet.errors import NodeBusy, NodeError, NodeLeaving, NodeLost, NodeTimeout, RateLimited
from subnet.pool.health_check import HealthChecker

logger = logging.getLogger(__name__)

# Seconds without new requests to a node that is at capacity and sent no retry_after.
_DEFAULT_RETRY_AFTER = 1.0


class Lease:
    """Slot on `remote`, held from the choice of the node to the first report of the request's outcome.

    Later reports are ignored. A report of a request that started before the node last became healthy again does not
    mark it unreachable.
    """

    def __init__(self, health_checker: HealthChecker, clock: Callable[[], float]) -> None:
        self.remote = health_checker.remote
        self._health_checker = health_checker
        self._clock = clock
        self._recoveries = self.remote.recoveries
        self._breaker_epoch = self.remote.breaker.on_start(clock())
        self.remote.leases[self] = None

    def first_token_received(self) -> None:
        """Report the first token of the request. The lease stays active."""
        self.remote.breaker.on_first_token(self._breaker_epoch)

    def succeeded(self) -> None:
        """Report that the request is complete."""
        if self._release():
            self.remote.breaker.on_success(self._breaker_epoch)

    def abandoned(self) -> None:
        """Report an end that says nothing about the node: an invalid request, or a client that disconnected."""
        if self._release():
            self.remote.breaker.on_abandoned(self._breaker_epoch)

    def failed(self, error: NodeError | None = None) -> None:
        """Report that the request failed with `error`.

        A node that is at capacity gets no requests for the error's retry_after. A node that is lost, shutting down or
        timed out is unreachable until its next health check. All errors count for the breaker except NodeBusy and
        NodeLeaving.
        """
        if not self._release():
            return
        remote, now = self.remote, self._clock()
        if isinstance(error, NodeBusy | NodeLeaving):
            remote.breaker.on_abandoned(self._breaker_epoch)
        else:
            remote.last_error = str(error or "unknown error")
            remote.breaker.on_failure(self._breaker_epoch, now)
            logger.warning("node %s failed: %s", remote.peer, remote.last_error)
        if isinstance(error, NodeBusy):
            remote.busy_until = now + (error.retry_after or _DEFAULT_RETRY_AFTER)
            remote.rate_limited = isinstance(error, RateLimited)
        elif isinstance(error, NodeLost | NodeTimeout | NodeLeaving) and self._recoveries == remote.recoveries:
            self._health_checker.recheck(str(error))
        remote.status(now)

    def _release(self) -> bool:
        """Release the slot; return False if that has already happened."""
        if self not in self.remote.leases:
            return False
        del self.remote.leases[self]
        # The node has a free slot again, so an earlier NodeBusy no longer applies; a rate limit still does.
        if not self.remote.rate_limited:
            self.remote.busy_until = 0.0
        return True
