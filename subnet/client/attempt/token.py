"""An attempt on the token lane."""

from __future__ import annotations

from subnet.aio import gather_or_cancel
from subnet.authorizers import AuthorizerBase
from subnet.client.attempt.base import Attempt
from subnet.client.ledger.token import TokenLedger
from subnet.client.resume.token import Resumption
from subnet.generation import Delta
from subnet.pool.lease import Lease
from subnet.protocols.base import Emit
from subnet.wire.messages import Accepted, Generate


class TokenAttempt(Attempt[Delta]):
    """For what `ledger` lacks when this is made, of at most `most` choices. Raises Diverged where no node can carry the
    answer on.
    """

    def __init__(self, lease: Lease, ledger: TokenLedger, authorizer: AuthorizerBase | None, most: int) -> None:
        self.lease = lease
        self._authorizer = authorizer
        self._resumption = Resumption(ledger, lease.remote.resume, most)
        self.choices = self._resumption.choices
        self.filters = self._resumption.way == "replay"

    async def run(self, emit: Emit) -> None:
        await gather_or_cancel([self._ask(request, emit) for request in self._resumption.requests])

    def new(self, delta: Delta) -> Delta | None:
        return self._resumption.new(delta)

    async def _ask(self, request: Generate, emit: Emit) -> None:
        """One request; nothing of it is believed before both ends have proved who they are."""
        protocol, authorizer = self.lease.remote.protocol, self._authorizer
        if authorizer is None:
            return await protocol.rpc_inference(request, emit)
        signed = await authorizer.sign_request(request)

        async def check(accepted: Accepted) -> None:
            await authorizer.validate_response(accepted, signed)

        return await protocol.rpc_inference(signed, emit, check)
