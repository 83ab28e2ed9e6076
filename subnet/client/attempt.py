"""One try to get what a ledger lacks, on one node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from subnet.authorizers import AuthorizerBase
from subnet.client.lease import Lease
from subnet.client.ledger import Ledger
from subnet.client.merge import merged
from subnet.client.resume import Resumption
from subnet.errors import FirstTokenTimeout, NodeError, StallTimeout, Unauthorized, WireError
from subnet.generation import Delta
from subnet.messages import Accepted, Generate


class Attempt:
    """Asks the node of `lease` for what `ledger` lacks when this is made."""

    def __init__(self, lease: Lease, ledger: Ledger, authorizer: AuthorizerBase | None) -> None:
        self.lease = lease
        self._authorizer = authorizer
        self._resumption = Resumption(ledger, lease.remote.resume)

    def stream(self) -> AsyncGenerator[Delta, None]:
        """What the node answers, signs of life included."""
        streams = [self._answers(request) for request in self._resumption.requests]
        return streams[0] if len(streams) == 1 else merged(streams)

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

    async def _answers(self, request: Generate) -> AsyncGenerator[Delta, None]:
        """Of one request, once both ends have proved who they are."""
        trusted = self._authorizer is None
        if self._authorizer is not None:
            request = await self._authorizer.sign_request(request)
        async with aclosing(self.lease.remote.protocol.rpc_inference_stream(request)) as stream:
            async for received in stream:
                if isinstance(received, Accepted):
                    if self._authorizer is not None:
                        await self._authorizer.validate_response(received, request)
                    trusted = True
                elif trusted:
                    yield received
                else:
                    raise Unauthorized(f"{self.lease.remote.peer} did not prove who it is")
