"""One request's slot on one deployment."""

from __future__ import annotations

import logging
from collections.abc import Callable

from subnet.chat import Endpoint
from subnet.errors import (
    EndpointMissing,
    NodeBusy,
    NodeError,
    NodeLeaving,
    NodeLost,
    NodeTimeout,
    ResponseLost,
    WireError,
)
from subnet.pool.deployment import Deployment
from subnet.pool.health_check import HealthChecker
from subnet.pool.policies.base import RoutingHint

logger = logging.getLogger(__name__)


class Lease:
    """Slot on `deployment` for a request to `endpoint`, held from the choice of the node to the first report of the
    request's outcome.

    `failed_deployments` is shared by all leases of one request, whose failures on a deployment count once. Later
    reports are ignored. A report of a request that started before the node last became healthy again does not mark it
    unreachable.
    """

    def __init__(
        self,
        deployment: Deployment,
        health_checker: HealthChecker,
        clock: Callable[[], float],
        hint: RoutingHint | None = None,
        failed_deployments: set[Deployment] | None = None,
        endpoint: Endpoint = "chat/completions",
    ) -> None:
        self.deployment = deployment
        self._endpoint = endpoint
        self.remote = deployment.remote
        self._health_checker = health_checker
        self._clock = clock
        self._hint = hint
        self._failed_deployments = set[Deployment]() if failed_deployments is None else failed_deployments
        self._recoveries = self.remote.recoveries
        self._breaker_epoch = deployment.breaker.on_start(clock())
        self.remote.leases[self] = None

    def first_token_received(self) -> None:
        """Report the first token of the request. The lease stays active."""
        self.deployment.breaker.on_first_token(self._breaker_epoch)

    def succeeded(self) -> None:
        """Report that the request is complete."""
        if self._release():
            self.deployment.breaker.on_success(self._breaker_epoch)

    def abandoned(self) -> None:
        """Report an end that says nothing about the node: an invalid request, or a client that disconnected."""
        if self._release():
            self.deployment.breaker.on_abandoned(self._breaker_epoch)

    def contradicted(self, request: bytes, other: str) -> None:
        """Report, after the end of a request that the node refused as invalid, that the node `other` served it.

        Counts for the breaker if the same happened with a request of another digest less than a minute before.
        """
        deployment, now = self.deployment, self._clock()
        deployment.last_error = f"refused a request as invalid that {other} served"
        logger.warning("node %s %s", self.remote.peer, deployment.last_error)
        if deployment.is_wrong_again(request, now):
            deployment.breaker.on_failure(self._breaker_epoch, now)
            self.remote.status(now)

    def failed(self, error: NodeError | None = None) -> None:
        """Report that the request failed with `error`.

        A deployment that is at capacity gets no requests for the error's retry_after, and one without the endpoint no
        requests to it for a minute. A node that is lost or shutting down is unreachable until its next health check; so
        is one on the token lane that timed out or lost a response, while on the chat lane that only brings the next
        check forward. Errors count for the breaker once per request, except NodeBusy, NodeLeaving, EndpointMissing, and
        repeated invalid answers to the same prompt.
        """
        if not self._release():
            return
        deployment, now = self.deployment, self._clock()
        if isinstance(error, NodeBusy | NodeLeaving | EndpointMissing):
            deployment.breaker.on_abandoned(self._breaker_epoch)
        else:
            deployment.last_error = str(error or "unknown error")
            logger.warning("node %s failed: %s", self.remote.peer, deployment.last_error)
            if self._counts(error):
                deployment.breaker.on_failure(self._breaker_epoch, now)
            else:
                deployment.breaker.on_abandoned(self._breaker_epoch)
        if isinstance(error, NodeBusy):
            deployment.mark_busy(error, now)
        elif isinstance(error, EndpointMissing):
            logger.info("%s", error)
            deployment.mark_missing(self._endpoint, now)
        elif self._concerns_address(error) and self._recoveries == self.remote.recoveries:
            self._health_checker.recheck(str(error))
        elif isinstance(error, ResponseLost):
            self._health_checker.check_soon()
        self.remote.status(now)

    def _counts(self, error: NodeError | None) -> bool:
        deployment = self.deployment
        if deployment in self._failed_deployments:
            return False
        self._failed_deployments.add(deployment)
        return not (isinstance(error, WireError) and deployment.is_repeated_answer(self._request_hash()))

    def _request_hash(self) -> int | None:
        return None if self._hint is None else hash((self._hint.prompt.tobytes(), self._hint.size))

    def _concerns_address(self, error: NodeError | None) -> bool:
        """Return whether the error concerns all models of the node. On the token lane it serves only one."""
        if isinstance(error, NodeTimeout | ResponseLost):
            card = self.deployment.card
            return card is not None and card.lane == "token"
        return isinstance(error, NodeLost | NodeLeaving)

    def _release(self) -> bool:
        """Release the slot; return False if that has already happened."""
        if self not in self.remote.leases:
            return False
        del self.remote.leases[self]
        self.deployment.on_slot_released()
        return True
