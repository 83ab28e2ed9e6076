"""One node as the pool knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from subnet.errors import NodeBusy, NoNodeAvailable, RateLimited
from subnet.node_info import Lane, NodeInfo, Resume
from subnet.pool.breaker import Breaker
from subnet.protocols.base import Protocol

if TYPE_CHECKING:
    from subnet.pool.lease import Lease

NodeState = Literal["healthy", "unreachable", "draining", "breaker-open", "breaker-half-open", "full"]


class RemoteNode:
    """State of a node, as seen by this process.

    `info` is the response to the last health check, None before the first one. `name` is the node_id reduced to
    printable ASCII, for response headers: unlike `peer`, it does not disclose the address. `unreachable_reason` is None
    while the node is reachable; `recoveries` counts how often it became reachable, the first time included. `leases`
    are the requests of this process on the node, oldest first; `last_error` is the last failure of one. The node gets
    no requests until `busy_until`, because it is at capacity or, if `rate_limited`, because of a rate limit.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.peer = protocol.peer
        self.info: NodeInfo | None = None
        self.unreachable_reason: str | None = "waiting for the first health check"
        self.recoveries = 0
        self.busy_until = 0.0
        self.rate_limited = False
        self.breaker = Breaker()
        self.leases: dict[Lease, None] = {}
        self.name = "unknown"
        self.last_error = ""
        self._running_elsewhere = 0
        self._state = "unreachable"
        self._since: float | None = None

    @property
    def running(self) -> int:
        """Number of requests that this process has on the node."""
        return len(self.leases)

    @property
    def capacity(self) -> int:
        """Number of choices that the node can generate at once, at least 1."""
        return 1 if self.info is None else max(1, self.info.capacity)

    @property
    def load(self) -> float:
        """Share of the node's slots in use: by this process now, and by others as of the last health check.

        Above 1 if more requests were sent than the node has slots.
        """
        return (self.running + self._running_elsewhere) / self.capacity

    @property
    def resume(self) -> Resume:
        """Ability of the node's engine to resume an answer that another node started."""
        return "continue" if self.info is None else self.info.capabilities.resume

    @property
    def supports_prefill(self) -> bool:
        """True if the node can continue a partial answer on the chat lane."""
        return self.info is not None and self.info.capabilities.prefill

    @property
    def at_capacity(self) -> bool:
        """True if the requests of this process alone use all slots of the node."""
        return self.info is not None and self.running >= self.info.capacity

    def available(self, now: float) -> bool:
        """Return whether a request may be sent to the node now."""
        return (
            self.unreachable_reason is None
            and not self.at_capacity
            and now >= self.busy_until
            and self.breaker.allows(now)
        )

    def serves(self, model: str | None, lane: Lane | None = None) -> bool:
        """Return whether the node accepts new requests for `model` (None: any model) on `lane` (None: either lane)."""
        card = None if self.info is None or self.info.draining else self.info.card(model)
        return card is not None and lane in (None, card.lane)

    def status(self, now: float) -> NodeStatus:
        """Return the state, its reason and its age.

        A change of state is dated when this is called, so call it after anything that may change the state.
        """
        state, reason = _state_and_reason(self, now)
        if self._since is None or state != self._state:
            self._state, self._since = state, now
        return NodeStatus(state, reason, now - self._since)

    def mark_healthy(self, info: NodeInfo, now: float) -> None:
        """Record the response to a health check."""
        if self.info is not None and info.node_id != self.info.node_id:
            # The node has restarted: failures of the previous process say little about this one.
            self.breaker.on_restart(now)
            self.busy_until = 0.0
        self.recoveries += self.unreachable_reason is not None
        self.unreachable_reason = None
        self._running_elsewhere = max(0, info.running - self.running)
        self.info = info
        self.name = "".join(char if " " <= char <= "~" else "?" for char in info.node_id)
        self.status(now)

    def mark_unreachable(self, reason: str, now: float) -> None:
        """Record that a health check or a request failed because the node did not respond."""
        self.unreachable_reason = reason
        self.status(now)


class NodeStatus(msgspec.Struct, frozen=True):
    """State of a node. `reason` says why it gets no or fewer requests, None if it is healthy; `seconds` is its age."""

    state: NodeState
    reason: str | None
    seconds: float


def unavailable_error(candidates: Sequence[RemoteNode], now: float) -> NodeBusy | NoNodeAvailable:
    """Return the error to raise when none of `candidates` is available, with the time until one may be."""
    busy = [remote.busy_until - now for remote in candidates if remote.busy_until > now]
    if busy and all(remote.rate_limited for remote in candidates if remote.busy_until > now or remote.at_capacity):
        return RateLimited("all nodes are rate-limited", retry_after=min(busy))
    if busy or any(remote.at_capacity for remote in candidates):
        return NodeBusy("all nodes are at capacity", retry_after=min(busy, default=1.0))
    if any(remote.breaker.state(now) == "half-open" for remote in candidates):
        # Each has a trial request running, whose first token admits more.
        return NodeBusy("all nodes are recovering, and each has a trial request running", retry_after=1.0)
    wait = min(remote.breaker.remaining_cooldown(now) for remote in candidates)
    return NoNodeAvailable("All nodes that serve the model are failing.", retry_after=wait or None)


def _state_and_reason(remote: RemoteNode, now: float) -> tuple[NodeState, str | None]:
    if remote.unreachable_reason is not None or remote.info is None:
        return "unreachable", remote.unreachable_reason
    if remote.info.draining:
        return "draining", "the node is shutting down: running requests finish, new ones go to other nodes"
    match remote.breaker.state(now):
        case "open":
            wait = remote.breaker.remaining_cooldown(now)
            return "breaker-open", f"{_failure_summary(remote)}; retry in {wait:.1f} s"
        case "half-open":
            trial = "the next request is a trial" if remote.breaker.allows(now) else "a trial request is running"
            return "breaker-half-open", f"{_failure_summary(remote)}; {trial}"
        case "closed":
            return _full_or_healthy(remote, now)


def _failure_summary(remote: RemoteNode) -> str:
    return f"{remote.breaker.reason}, last error: {remote.last_error}"


def _full_or_healthy(remote: RemoteNode, now: float) -> tuple[NodeState, str | None]:
    if (wait := remote.busy_until - now) > 0:
        if remote.rate_limited:
            return "full", f"rate-limited by the upstream server; retry in {wait:.1f} s"
        return "full", f"the node rejected a request for lack of capacity; retry in {wait:.1f} s"
    info = remote.info
    if info is not None and remote.at_capacity:
        return "full", f"all {info.capacity} slots are in use by this gateway"
    if info is not None and info.running >= info.capacity:
        return "full", f"the node reported that all {info.capacity} slots are in use"
    return "healthy", None
