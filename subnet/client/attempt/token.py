"""Attempt on the token lane."""

from __future__ import annotations

import logging

from subnet.aio import Sink, gather_or_cancel
from subnet.authorizers import AuthorizerBase
from subnet.client.attempt.base import Attempt
from subnet.client.ledger.token import TokenLedger
from subnet.client.resume.token import ResumePlan
from subnet.generation import Delta
from subnet.node_info import short
from subnet.pool.lease import Lease
from subnet.wire.messages import Accepted, Generate

logger = logging.getLogger(__name__)


class TokenAttempt(Attempt[Delta]):
    """Attempt to generate the unfinished choices of `ledger`, at most `max_choices`.

    Raises Diverged if no node can continue the answer.
    """

    def __init__(self, lease: Lease, ledger: TokenLedger, authorizer: AuthorizerBase | None, max_choices: int) -> None:
        self.lease = lease
        self._authorizer = authorizer
        self._ledger = ledger
        self.weights = lease.deployment.weights
        self._plan = ResumePlan(ledger, lease.remote.capabilities, max_choices, self.weights)
        if not ledger.has_weights(self.weights):
            self._log_other_weights()
        self.choices = self._plan.choices
        self.is_replay = self._plan.strategy == "replay"

    async def run(self, emit: Sink[Delta]) -> None:
        await gather_or_cancel([self._send(request, emit) for request in self._plan.requests])

    def skip_delivered(self, delta: Delta) -> Delta | None:
        new = self._plan.skip_delivered(delta)
        self._ledger.replayed_tokens += len(delta.tokens) - (0 if new is None else len(new.tokens))
        return new

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
        protocol, authorizer = self.lease.remote.protocol, self._authorizer
        if authorizer is None:
            return await protocol.rpc_inference(request, emit)
        signed = await authorizer.sign_request(request)

        async def check(accepted: Accepted) -> None:
            await authorizer.validate_response(accepted, signed)

        return await protocol.rpc_inference(signed, emit, check)
