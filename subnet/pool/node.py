"""One node as the pool knows it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import msgspec

from subnet.node_info import Capabilities, Lane, NodeInfo
from subnet.pool.deployment import Deployment, DeploymentStatus
from subnet.protocols.base import Protocol

if TYPE_CHECKING:
    from subnet.pool.lease import Lease

NodeState = Literal["healthy", "unreachable", "draining", "mismatch", "breaker-open", "breaker-half-open", "full"]


_NO_CAPABILITIES = Capabilities()


class RemoteNode:
    """State of a node, as seen by this process.

    `info` is the response to the last health check, None before the first one. `name` is the node_id reduced to
    printable ASCII, for response headers: unlike `peer`, it does not disclose the address. `unreachable_reason` is None
    while the node is reachable; `recoveries` counts how often it became reachable, the first time included. `checked`:
    it has had the result of a health check. `changes` counts the changes of what it serves, and whether. `leases` are
    the requests of this process on the node, oldest first. What concerns one model only is in its Deployment.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.peer = protocol.peer
        self.info: NodeInfo | None = None
        self.unreachable_reason: str | None = "waiting for the first health check"
        self.recoveries = 0
        self.checked = False
        self.changes = 0
        self.leases: dict[Lease, None] = {}
        self.name = "unknown"
        self._deployments: dict[str, Deployment] = {}
        self._running_elsewhere = 0
        self._state = "unreachable"
        self._since: float | None = None

    @property
    def running(self) -> int:
        """Number of requests that this process has on the node."""
        return len(self.leases)

    @property
    def capacity(self) -> int:
        """Number of choices that the node can generate at once, at least 1; an estimate if it has no limit."""
        return 1 if self.info is None else max(1, self.info.capacity)

    @property
    def max_choices(self) -> int:
        """Maximum number of choices of one request."""
        return self.capacity if self.info is None or self.info.limited else sys.maxsize

    @property
    def load(self) -> float:
        """Share of the node's slots in use: by this process now, and by others as of the last health check.

        Above 1 if more requests were sent than the node has slots.
        """
        return (self.running + self._running_elsewhere) / self.capacity

    @property
    def capabilities(self) -> Capabilities:
        """Optional features of the node, as of the last health check."""
        return _NO_CAPABILITIES if self.info is None else self.info.capabilities

    @property
    def at_capacity(self) -> bool:
        """True if the requests of this process alone use all slots of the node."""
        return self.info is not None and self.info.limited and self.running >= self.info.capacity

    @property
    def last_error(self) -> str:
        """The last failure of a request for any model; "" if there was none."""
        return next((one.last_error for one in self._deployments.values() if one.last_error), "")

    def deployment(self, model: str | None) -> Deployment:
        """Return the deployment of `model`, which the node must serve (None: its first model)."""
        if model is None:
            card = None if self.info is None else self.info.card(None)
            model = "" if card is None else card.id
        found = self._deployments.get(model)
        if found is None:
            found = self._deployments[model] = Deployment(self, model)
        return found

    @property
    def deployments(self) -> list[Deployment]:
        """Deployments of all models that the node serves, in its order."""
        return [] if self.info is None else [self.deployment(card.id) for card in self.info.cards]

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
        restarted = self.info is not None and info.node_id != self.info.node_id
        self.checked = True
        self.changes += self.unreachable_reason is not None or self._serves_differently(info)
        self.recoveries += self.unreachable_reason is not None
        self.unreachable_reason = None
        self._running_elsewhere = max(0, info.running - self.running)
        self.info = info
        served = {card.id for card in info.cards}
        self._deployments = {name: one for name, one in self._deployments.items() if name in served}
        for deployment in self._deployments.values():
            deployment.update()
            if restarted:
                deployment.on_restart(now)
        self.name = "".join(char if " " <= char <= "~" else "?" for char in info.node_id)
        self.status(now)

    def mark_unreachable(self, reason: str, now: float) -> None:
        """Record that a health check or a request failed because the node did not respond."""
        self.checked = True
        self.changes += self.unreachable_reason is None
        self.unreachable_reason = reason
        self.status(now)

    def _serves_differently(self, info: NodeInfo) -> bool:
        return self.info is None or (info.cards, info.draining) != (self.info.cards, self.info.draining)


class NodeStatus(msgspec.Struct, frozen=True):
    """State of a node. `reason` says why it gets no or fewer requests, None if it is healthy; `seconds` is its age."""

    state: NodeState
    reason: str | None
    seconds: float


def _state_and_reason(remote: RemoteNode, now: float) -> tuple[NodeState, str | None]:
    info = remote.info
    if remote.unreachable_reason is not None or info is None:
        return "unreachable", remote.unreachable_reason
    if info.draining:
        return "draining", "the node is shutting down: running requests finish, new ones go to other nodes"
    found = [(one.model, one.status(now)) for one in remote.deployments]
    failing = [(model, status) for model, status in found if status.state != "healthy"]
    if failing and len(failing) == len(found):
        return failing[0][1].state, failing[0][1].reason
    if remote.at_capacity:
        return "full", f"all {info.capacity} slots are in use by this gateway"
    if info.limited and info.running >= info.capacity:
        return "full", f"the node reported that all {info.capacity} slots are in use"
    return "healthy", "; ".join(map(_describe, failing)) or None


def _describe(failing: tuple[str, DeploymentStatus]) -> str:
    model, status = failing
    return f"{model} is {status.state}: {status.reason}"
