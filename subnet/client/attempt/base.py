"""Base class of the attempts to generate the rest of an answer on one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic

from subnet.aio import Sink
from subnet.client.ledger.base import Choice, D
from subnet.errors import FirstTokenTimeout, InterTokenTimeout, NodeError, NodeTimeout, WireError
from subnet.pool.lease import Lease


class Attempt(ABC, Generic[D]):
    """Attempt to generate the rest of `choices` on the node of `lease`.

    If `is_replay`, the node generates the answer from its beginning. If `may_end_early`, its context has no room for
    the whole answer. In both cases, deltas must pass through `skip_delivered`. `weights` is the fingerprint of the
    node's weights, "" if it is not known. `settings_prefix` is the prefix of the timeouts' names in error messages.
    """

    settings_prefix: ClassVar[str] = ""
    lease: Lease
    choices: Sequence[Choice[D]]
    is_replay: bool
    may_end_early: bool = False
    weights: str = ""

    @abstractmethod
    async def run(self, emit: Sink[D]) -> None:
        """Pass the node's deltas, including keep-alives, to `emit` until the stream ends."""

    @abstractmethod
    def skip_delivered(self, delta: D) -> D | None:
        """Return the part of `delta` that was not delivered yet; None for nothing. Counts the rest in the ledger.

        Raises Diverged.
        """

    def idle_timeout_error(self, seconds: float, *, first: bool) -> NodeError:
        """Return the error for a node that sent no token, or if `first` no first token, for `seconds`."""
        peer, own = self.lease.remote.peer, self.lease.remote.protocol.timeouts
        if first:
            setting = f"{'' if own.first_token else self.settings_prefix}first_token_timeout"
            return FirstTokenTimeout(f"{peer} sent no first token within {seconds:.1f} s ({setting})")
        setting = f"{'' if own.inter_token else self.settings_prefix}inter_token_timeout"
        return InterTokenTimeout(f"{peer} sent no token for {seconds:.1f} s ({setting})")

    def attempt_timeout_error(self, seconds: float) -> NodeError:
        """Return the error for an attempt that was not complete after `seconds`."""
        return NodeTimeout(f"{self.lease.remote.peer} did not finish within {seconds:.1f} s (attempt_timeout)")

    def failover_timeout_error(self, seconds: float) -> NodeError:
        """Return the error for a failover that brought no new token within `seconds` of the first failure."""
        return NodeTimeout(f"no new token within {seconds:.1f} s of the first failure (failover_timeout)")

    def incomplete_error(self) -> NodeError:
        """Return the error for a stream that ended before all choices were finished."""
        return WireError(f"{self.lease.remote.peer} closed the stream before the answer was complete")
