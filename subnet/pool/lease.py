"""One request on one node."""

from __future__ import annotations

import logging
from collections.abc import Callable

from subnet.errors import NodeBusy, NodeError, NodeLeaving, NodeLost, NodeTimeout, RateLimited
from subnet.pool.health_check import Prober

logger = logging.getLogger(__name__)

# How long a node that is full is left alone when it does not say, in seconds.
_FULL = 1.0


class Lease:
    """A place on `remote`, from the choice of the node to the one report of how it went; later reports are ignored.

    It remembers in which life of the node it began, so that a late report does not speak of another life.
    """

    def __init__(self, prober: Prober, clock: Callable[[], float]) -> None:
        self.remote = prober.remote
        self._prober = prober
        self._clock = clock
        self._arrival = self.remote.arrivals
        self._ticket = self.remote.breaker.on_start(clock())
        self.remote.leases[self] = None

    def answered(self) -> None:
        """Its first token came."""
        self.remote.breaker.on_answer(self._ticket)

    def succeeded(self) -> None:
        if self._end():
            self.remote.breaker.on_success(self._ticket)

    def abandoned(self) -> None:
        """It ended for a reason that says nothing of the node: the client's mistake, or its leaving."""
        if self._end():
            self.remote.breaker.on_abandoned(self._ticket)

    def failed(self, error: NodeError | None = None) -> None:
        """`error` tells what of: a full node is left alone for a while, one that is lost, late or leaving until it
        answers a probe; all but full and leaving count for the breaker.
        """
        if not self._end():
            return
        remote, now = self.remote, self._clock()
        if isinstance(error, NodeBusy | NodeLeaving):
            remote.breaker.on_abandoned(self._ticket)
        else:
            remote.trouble = str(error or "unknown error")
            remote.breaker.on_failure(self._ticket, now)
            logger.warning("node %s failed: %s", remote.peer, remote.trouble)
        if isinstance(error, NodeBusy):
            remote.busy_until = now + (error.retry_after or _FULL)
            remote.limited = isinstance(error, RateLimited)
        elif isinstance(error, NodeLost | NodeTimeout | NodeLeaving) and self._arrival == remote.arrivals:
            self._prober.doubt(str(error))
        remote.status(now)

    def _end(self) -> bool:
        if self not in self.remote.leases:
            return False
        del self.remote.leases[self]
        # A place of ours is free again, whatever the node said when it was full.
        if not self.remote.limited:
            self.remote.busy_until = 0.0
        return True
