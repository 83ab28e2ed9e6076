"""Attempt on the token lane."""

from __future__ import annotations

import logging

import msgspec

from subnet.aio import Sink, gather_or_cancel
from subnet.authorizers import AuthorizerBase
from subnet.client.attempt.base import Attempt
from subnet.client.ledger.token import TokenLedger
from subnet.client.resume.token import ResumePlan
from subnet.errors import ContextFull
from subnet.generation import Delta
from subnet.node_info import short
from subnet.pool.lease import Lease
from subnet.wire.messages import Generate

logger = logging.getLogger(__name__)


class TokenAttempt(Attempt[Delta]):
    """Attempt to generate the unfinished choices of `ledger`, at most `max_choices`.

    Raises Diverged if no node can continue the answer.
    """

    def __init__(self, lease: Lease, ledger: TokenLedger, authorizer: AuthorizerBase | None, max_choices: int) -> None:
        self.lease = lease
        self._authorizer = authorizer
        self._context_is_full = False
        self._ledger = ledger
        self.weights = lease.deployment.weights
        self._plan = ResumePlan(ledger, lease.remote.capabilities, max_choices, self.weights)
        if not ledger.has_weights(self.weights):
            self._log_other_weights()
        self.choices = self._plan.choices
        self.is_replay = self._plan.strategy == "replay"
        self._context_length = lease.deployment.context_length
        self.may_end_early = ledger.requested_length > self._context_length

    async def run(self, emit: Sink[Delta]) -> None:
        await gather_or_cancel([self._send(request, emit) for request in self._plan.requests])
        if self._context_is_full:
            raise ContextFull(f"the context of {self.lease.remote.peer} is full before the answer is complete")

    def skip_delivered(self, delta: Delta) -> Delta | None:
        new = self._plan.skip_delivered(delta)
        self._ledger.replayed_tokens += len(delta.tokens) - (0 if new is None else len(new.tokens))
        return self._without_early_end(new) if self.may_end_early and new is not None else new

    def _without_early_end(self, delta: Delta) -> Delta | None:
        """Return `delta` without its finish reason if only this node's context ended the choice."""
        if delta.finish_reason != "length":
            return delta
        length = self._ledger.length_after(delta)
        if not self._context_length <= length < self._ledger.requested_length:
            return delta
        self._context_is_full = True
        return msgspec.structs.replace(delta, finish_reason=None) if delta.tokens else None

    def _log_other_weights(self) -> None:
        logger.warning(
            "node %s has other weights (%s) than the nodes that began an answer of %s (%s); the answer is %s",
            self.lease.remote.peer,
            short(self.weights),
            self._ledger.model,
            short(self._ledger.weights),
            "generated again and compared" if self._plan.strategy == "replay" else "continued",
        )

    async def _send(self, request: Generate, emit: Sink[Delta]) -> None:
        """Send one request. With an authorizer, no delta is accepted before the node has authenticated itself."""
        await self.lease.remote.protocol.rpc_inference(request, emit, self._authorizer)
