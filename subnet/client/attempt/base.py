"""One try to get what a ledger lacks, on one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic

from subnet.client.ledger.base import Choice, D, Take
from subnet.errors import FirstTokenTimeout, InterTokenTimeout, NodeError, NodeTimeout, WireError
from subnet.pool.lease import Lease


class Attempt(ABC, Generic[D]):
    """Asks the node of `lease` for what is lacking of `choices`.

    `filters`: whether deltas must pass through `new`, as some of them repeat what was delivered. `settings_prefix` is
    the prefix of the settings that bound the wait for tokens, for error messages.
    """

    settings_prefix: ClassVar[str] = ""
    lease: Lease
    choices: Sequence[Choice[D]]
    filters: bool

    @abstractmethod
    async def run(self, emit: Take[D]) -> None:
        """Emit what the node answers, signs of life included, until it has nothing more to say."""

    @abstractmethod
    def new(self, delta: D) -> D | None:
        """What of `delta` the client does not have yet; None for nothing. Raises Diverged."""

    def late(self, *, first: bool, within: float) -> NodeError:
        """The error that says that the node was silent for too long."""
        peer, own = self.lease.remote.peer, self.lease.remote.protocol.timeouts
        if first:
            setting = f"{'' if own.first_token else self.settings_prefix}first_token_timeout"
            return FirstTokenTimeout(f"{peer} sent no first token within {within:.1f} s ({setting})")
        setting = f"{'' if own.inter_token else self.settings_prefix}inter_token_timeout"
        return InterTokenTimeout(f"{peer} sent no token for {within:.1f} s ({setting})")

    def late_in_all(self, within: float) -> NodeError:
        """The error that says that the node was not done in the time that it has."""
        return NodeTimeout(f"{self.lease.remote.peer} did not finish within {within:.1f} s (attempt_timeout)")

    def ended(self) -> NodeError:
        """The error that says that the node ended a stream before its end."""
        return WireError(f"{self.lease.remote.peer} closed the stream before the answer was complete")
