"""Failover: runs a generation to completion, on another node when one fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from math import inf
from time import monotonic
from typing import Generic

from subnet.aio import Sink
from subnet.chat import Endpoint
from subnet.client.attempt.base import Attempt
from subnet.client.deadline import IdleDeadline
from subnet.client.ledger.base import D, Ledger
from subnet.client.race import Hedger, Race
from subnet.client.refusals import Refusals
from subnet.client.request_state import RequestState
from subnet.client.resume.token import Diverged
from subnet.client.retry import Retry
from subnet.client.suspects import SuspectRequests, may_be_caused
from subnet.client.timeouts import Limits
from subnet.errors import (
    ContextFull,
    ContextLengthExceeded,
    EndpointMissing,
    NodeBusy,
    NodeError,
    NoNodeAvailable,
    RequestError,
)
from subnet.generation import Needs
from subnet.node_info import Lane, Modality
from subnet.pool.deployment import Deployment
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.pool.requirements import Requirements
from subnet.pool.wait_queue import Ticket

logger = logging.getLogger(__name__)

AttemptFactory = Callable[[Lease, int], Attempt[D]]
"""Creates an attempt on a leased node, with a maximum number of choices. Raises Diverged if no node can continue."""


class Failover(Generic[D]):
    """One generation: delivers the choices of `ledger` to `emit`, through attempts that `create_attempt` makes."""

    def __init__(
        self,
        ledger: Ledger[D],
        create_attempt: AttemptFactory[D],
        emit: Sink[D],
        *,
        manager: RemoteManager,
        limits: Limits,
        hedger: Hedger,
        deadline: IdleDeadline,
        suspects: SuspectRequests,
        state: RequestState | None = None,
    ) -> None:
        self._ledger = ledger
        self._create_attempt = create_attempt
        self._emit = emit
        self._manager = manager
        self._limits = limits
        self._hedger = hedger
        self._deadline = deadline
        self._suspects = suspects
        self._retry = Retry(limits, state)
        self._refusals = Refusals()
        self._max_choices = len(ledger.choices)
        self._interrupted = False

    async def run(self, priority: int) -> None:
        """Run until every choice is finished.

        Raises RequestError, NoNodeAvailable, EndpointMissing, RepeatedFailure, the last NodeError after the last
        attempt, or any error raised by `emit`.
        """
        if self._suspects and (digest := self._ledger.digest) is not None:
            self._suspects.check(digest)
        ticket = self._manager.wait_queue.ticket(self._ledger.model, priority, self._kind)
        try:
            while not self._ledger.complete:
                lease = await self._acquire_lease(ticket)
                await self._run_attempt(self._start_attempt(lease))
                for delta in self._ledger.finish_full_choices():
                    self._emit(delta)
        finally:
            self._retry.close()

    async def _run_attempt(self, first: Attempt[D]) -> None:
        """Run one attempt, possibly hedged. Raises its error only if it must not be retried."""
        ledger, retry = self._ledger, self._retry
        limits = self._limits.for_node(first.lease.remote, ledger.lane)
        race = Race(first, ledger, self._deadline, limits, self._emit)
        delivered, self._interrupted = ledger.delivered_tokens, True
        try:
            await self._run_in_time(race)
        except Diverged as error:
            race.attempt.lease.abandoned()
            if ledger.diverged:
                raise
            ledger.diverged = True
            logger.warning("node %s cannot resume an answer: %s", race.attempt.lease.remote.peer, error)
        except NodeError as error:
            if isinstance(error, ContextFull):
                race.attempt.lease.succeeded()
            else:
                race.attempt.lease.failed(error)
            await self._wait_to_retry(race, error, delivered)
        except RequestError as error:
            lease = race.attempt.lease
            lease.abandoned()
            if delivered or (ledger.lane == "token" and ledger.delivered_tokens):
                # A node that refuses the rest of an answer cannot resume it; another one may.
                await self._wait_to_retry(race, NodeError(str(error)), delivered)
                return
            if isinstance(error, ContextLengthExceeded) and self._has_longer_context(lease.deployment):
                return
            # Servers of the chat lane are the operator's choice: their refusals are passed on.
            if ledger.lane == "chat":
                raise
            tried = {*retry.excluded, lease.remote.peer}
            has_other = self._manager.has_other(ledger.model, tried, self._requirements)
            self._refusals.on_refusal(error, lease, self._requirements, has_other=has_other)
            retry.excluded.add(lease.remote.peer)
        except BaseException:
            # An invalid request or a client that disconnected: only delivered tokens say something about the node.
            if ledger.delivered_tokens > delivered:
                race.attempt.lease.succeeded()
                self._on_served(race)
            else:
                race.attempt.lease.abandoned()
            raise
        else:
            race.attempt.lease.succeeded()
            self._on_served(race)
            retry.on_progress()
            self._interrupted = False
        finally:
            ledger.record_weights(race.attempt.weights)

    def _has_longer_context(self, refused: Deployment) -> bool:
        """Return whether another node has a longer context than the one that refused the request, and ask it next."""
        ledger, length = self._ledger, refused.context_length
        if not ledger.refused_context < length < inf:
            return False
        if not self._manager.has_longer_context(ledger.model, self._requirements, length):
            return False
        ledger.refused_context = int(length)
        return True

    async def _wait_to_retry(self, race: Race[D], error: NodeError, delivered: int) -> None:
        """Wait before the next attempt. Raises `error` if there must be none."""
        ledger, retry, lease = self._ledger, self._retry, race.attempt.lease
        if isinstance(error, NodeBusy):
            self._max_choices = max(1, len(race.attempt.choices) // 2)
        has_progress = ledger.delivered_tokens > delivered
        if has_progress:
            retry.on_progress()
            self._pin_model(lease.deployment)
        self._check_suspicion(error, lease.remote.peer, has_progress)
        tried = {*retry.excluded, lease.remote.peer}
        has_other = self._manager.has_other(ledger.model, tried, self._requirements)
        pause = retry.on_failure(error, lease.remote.peer, has_other=has_other, has_begun=race.decided)
        await self._deadline.wait(asyncio.sleep(pause))

    def _check_suspicion(self, error: NodeError, peer: str, has_progress: bool) -> None:
        """Raise RepeatedFailure if the request may have brought down `peer`, the second node in a row."""
        if has_progress or not (may_be_caused(error) or isinstance(error, NodeBusy)):
            self._clear_suspicion()
        elif may_be_caused(error) and (digest := self._ledger.digest) is not None:
            self._suspects.record(digest, peer)
            self._suspects.check(digest)

    def _on_served(self, race: Race[D]) -> None:
        self._clear_suspicion()
        if race.refused is not None and self._ledger.lane == "token":
            self._refusals.on_hedge_refusal(race.refused)
        if self._refusals and (digest := self._ledger.digest) is not None:
            self._refusals.on_success(race.attempt.lease, digest)

    def _clear_suspicion(self) -> None:
        if self._suspects and (digest := self._ledger.digest) is not None:
            self._suspects.clear(digest)

    def _pin_model(self, deployment: Deployment) -> None:
        """Continue an answer only on the model that started it, even if the session named no model."""
        self._ledger.model = deployment.model
        self._ledger.identity = self._ledger.identity or deployment.identity

    async def _run_in_time(self, race: Race[D]) -> None:
        """Run a race. After a failure, it must deliver a new token within the rest of failover_timeout."""
        remaining = self._retry.remaining
        if remaining is None:
            return await self._run_race(race)
        try:
            async with asyncio.timeout(remaining) as silence:
                race.notify(lambda: silence.reschedule(None))
                return await self._run_race(race)
        except TimeoutError:
            if not silence.expired():
                raise
            raise race.attempt.failover_timeout_error(self._limits.failover_timeout) from None

    async def _run_race(self, race: Race[D]) -> None:
        if self._ledger.delivered_tokens:
            return await race.run()
        started, deployment = monotonic(), race.attempt.lease.deployment
        race.on_first_token = lambda: self._hedger.record_first_token(deployment, monotonic() - started)
        return await race.run(self._hedger.delay(deployment), lambda: self._hedge(race.attempt))

    def _start_attempt(self, lease: Lease) -> Attempt[D]:
        """Create an attempt with at most as many choices as the node has slots; the rest follows in later attempts."""
        ledger = self._ledger
        try:
            attempt = self._create_attempt(lease, min(self._max_choices, lease.remote.max_choices))
        except BaseException:
            lease.abandoned()
            raise
        if attempt.may_end_early:
            length = lease.deployment.context_length
            attempt.may_end_early = self._manager.knows_longer_context(ledger.model, length)
        if self._interrupted or ledger.peers[-1:] != [lease.remote.peer]:
            ledger.peers.append(lease.remote.peer)
            ledger.nodes.append(lease.remote.name)
        return attempt

    async def _acquire_lease(self, ticket: Ticket) -> Lease:
        with ticket:
            while True:
                try:
                    ticket.check()
                    return self._lease(self._retry.excluded)
                except (NoNodeAvailable, NodeBusy) as error:
                    pause = self._retry.on_unavailable(error)
                await self._deadline.wait(ticket.wait(pause))

    def _hedge(self, first: Attempt[D]) -> Attempt[D] | None:
        """Return an attempt on another node; None if no other has capacity or too many requests were hedged."""
        ledger, peer = self._ledger, first.lease.remote.peer
        if self._manager.wait_queue.has_waiters(ledger.model):
            return None
        try:
            lease = self._lease([peer])
        except (NoNodeAvailable, NodeBusy, EndpointMissing):
            return None
        if lease.remote.peer == peer or not self._hedger.try_hedge():
            lease.abandoned()
            return None
        return self._start_attempt(lease)

    @property
    def _kind(self) -> tuple[Lane, Endpoint, str, Needs, frozenset[Modality]]:
        """What does not change from attempt to attempt, see Requirements.kind."""
        ledger = self._ledger
        return ledger.lane, ledger.endpoint, ledger.identity, ledger.needs, ledger.modalities

    @property
    def _requirements(self) -> Requirements:
        """Requirements of the rest of the generation."""
        return Requirements(*self._kind, self._ledger.size, self._ledger.weights)

    def _lease(self, excluded: Collection[str]) -> Lease:
        ledger, failed = self._ledger, self._retry.failed_deployments
        return self._manager.lease(ledger.model, excluded, ledger.routing_hint, self._requirements, failed)
