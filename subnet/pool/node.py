"""One row of the node table."""

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


class Remote:
    """A node as this gateway knows it.

    `info` is what it last said of itself, None before the first answer; `name` what it calls itself, in printable
    ASCII, for headers, where it tells strangers less than its address; `fault` is why it is away, None when it is here,
    and `arrivals` counts how often it came; `leases` are the requests that this gateway has on it now, oldest first;
    `trouble` is the last failure of one. Until `busy_until` it is left alone, as it is full, or `limited`: asked too
    often.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.peer = protocol.peer
        self.info: NodeInfo | None = None
        self.fault: str | None = "waiting for the first health check"
        self.arrivals = 0
        self.busy_until = 0.0
        self.limited = False
        self.breaker = Breaker()
        self.leases: dict[Lease, None] = {}
        self.name = "unknown"
        self.trouble = ""
        self._others = 0
        self._state = "unreachable"
        self._since: float | None = None

    @property
    def running(self) -> int:
        """Requests that this gateway has on it now."""
        return len(self.leases)

    @property
    def capacity(self) -> int:
        """Choices that it can write at once."""
        return 1 if self.info is None else max(1, self.info.capacity)

    @property
    def load(self) -> float:
        """The share of its slots that is taken: by this gateway now, and by others when it last said. Above 1 when
        more was sent than it has slots.
        """
        return (self.running + self._others) / self.capacity

    @property
    def resume(self) -> Resume:
        """What its engine can do for an answer that another node began."""
        return "continue" if self.info is None else self.info.capabilities.resume

    @property
    def prefills(self) -> bool:
        """Whether it goes on with an answer that was begun, on the chat lane."""
        return self.info is not None and self.info.capabilities.prefill

    @property
    def filled(self) -> bool:
        """Whether this gateway alone has given it all it can take."""
        return self.info is not None and self.running >= self.info.capacity

    def available(self, now: float) -> bool:
        return self.fault is None and not self.filled and now >= self.busy_until and self.breaker.allows(now)

    def serves(self, model: str | None, lane: Lane | None = None) -> bool:
        """Whether it takes new work for `model` (None: any), on `lane` (None: either)."""
        card = None if self.info is None or self.info.draining else self.info.card(model)
        return card is not None and lane in (None, card.lane)

    def status(self, now: float) -> Status:
        """How it is. Changes are dated when this is called, so it is called after whatever may change it."""
        state, why = status_of(self, now)
        if self._since is None or state != self._state:
            self._state, self._since = state, now
        return Status(state, why, now - self._since)

    def came(self, info: NodeInfo, now: float) -> None:
        """It answered."""
        if self.info is not None and info.node_id != self.info.node_id:
            # Another process: what the last one did need not be held against it for long.
            self.breaker.on_return(now)
            self.busy_until = 0.0
        self.arrivals += self.fault is not None
        self.fault = None
        self._others = max(0, info.running - self.running)
        self.info = info
        self.name = "".join(char if " " <= char <= "~" else "?" for char in info.node_id)
        self.status(now)

    def went(self, fault: str, now: float) -> None:
        """It did not answer."""
        self.fault = fault
        self.status(now)


class Status(msgspec.Struct, frozen=True):
    """`why` it gets no requests, or fewer, None when it is healthy; `seconds` it has been so."""

    state: NodeState
    why: str | None
    seconds: float


def status_of(remote: Remote, now: float) -> tuple[NodeState, str | None]:
    """The state, and why."""
    if remote.fault is not None or remote.info is None:
        return "unreachable", remote.fault
    if remote.info.draining:
        return "draining", "the node is shutting down: running requests finish, new ones go to other nodes"
    match remote.breaker.state(now):
        case "open":
            wait = remote.breaker.wait(now)
            return "breaker-open", f"{_failures(remote)}; retry in {wait:.1f} s"
        case "half-open":
            trial = "the next request is a trial" if remote.breaker.allows(now) else "a trial request is running"
            return "breaker-half-open", f"{_failures(remote)}; {trial}"
        case "closed":
            return _fullness(remote, now)


def refusal(able: Sequence[Remote], now: float) -> NodeBusy | NoNodeAvailable:
    """Why none of these takes a request now, and when one may."""
    busy = [remote.busy_until - now for remote in able if remote.busy_until > now]
    if busy and all(remote.limited for remote in able if remote.busy_until > now or remote.filled):
        return RateLimited("all nodes are rate-limited", retry_after=min(busy))
    if busy or any(remote.filled for remote in able):
        return NodeBusy("all nodes are at capacity", retry_after=min(busy, default=1.0))
    wait = min(remote.breaker.wait(now) for remote in able)
    return NoNodeAvailable("All nodes that serve the model are failing.", retry_after=wait or None)


def _failures(remote: Remote) -> str:
    return f"{remote.breaker.reason}, last error: {remote.trouble}"


def _fullness(remote: Remote, now: float) -> tuple[NodeState, str | None]:
    if (wait := remote.busy_until - now) > 0:
        if remote.limited:
            return "full", f"rate-limited by the upstream server; retry in {wait:.1f} s"
        return "full", f"the node rejected a request for lack of capacity; retry in {wait:.1f} s"
    info = remote.info
    if info is not None and remote.filled:
        return "full", f"all {info.capacity} slots are in use by this gateway"
    if info is not None and info.running >= info.capacity:
        return "full", f"the node reported that all {info.capacity} slots are in use"
    return "healthy", None
