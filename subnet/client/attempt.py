"""One try to get what a ledger lacks, on one node."""

from __future__ import annotations

from subnet.authorizers import AuthorizerBase
from subnet.client.lease import Lease
from subnet.client.ledger import Ledger
from subnet.client.resume import Resumption
from subnet.client.together import together
from subnet.errors import FirstTokenTimeout, NodeError, StallTimeout, WireError
from subnet.generation import Delta
from subnet.messages import Accepted, Generate
from subnet.protocols.base import Emit


class Attempt:
    """Asks the node of `lease` for what `ledger` lacks when this is made, of at most `most` choices."""

    def __init__(self, lease: Lease, ledger: Ledger, authorizer: AuthorizerBase | None, most: int) -> None:
        self.lease = lease
        self._authorizer = authorizer
        self._resumption = Resumption(ledger, lease.remote.resume, most)
        self.choices = self._resumption.choices

    async def run(self, emit: Emit) -> None:
        """Emit what the node answers, signs of life included, until it has nothing more to say."""
        await together([self._ask(request, emit) for request in self._resumption.requests])

    @property
    def filters(self) -> bool:
        """Whether deltas must pass through `new`: some of them repeat what was delivered."""
        return self._resumption.way == "replay"

    def new(self, delta: Delta) -> Delta | None:
        """What of `delta` the client does not have yet; None for nothing. Raises Diverged."""
        return self._resumption.new(delta)

    def late(self, *, first: bool, within: float) -> NodeError:
        """The error that says that the node was silent for too long."""
        peer = self.lease.remote.peer
        if first:
            return FirstTokenTimeout(f"{peer} gave no token within {within:.1f} s")
        return StallTimeout(f"{peer} gave no further token within {within:.1f} s")

    def ended(self) -> NodeError:
        """The error that says that the node ended a stream before its end."""
        return WireError(f"{self.lease.remote.peer} ended a stream before its end")

    async def _ask(self, request: Generate, emit: Emit) -> None:
        """One request; nothing of it is believed before both ends have proved who they are."""
        protocol, authorizer = self.lease.remote.protocol, self._authorizer
        if authorizer is None:
            return await protocol.rpc_inference(request, emit)
        signed = await authorizer.sign_request(request)

        async def check(accepted: Accepted) -> None:
            await authorizer.validate_response(accepted, signed)

        return await protocol.rpc_inference(signed, emit, check)
