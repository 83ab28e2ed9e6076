"""How nodes are, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from subnet.errors import NodeBusy, NoNodeAvailable, RateLimited

if TYPE_CHECKING:
    from subnet.client.remote import Remote

NodeState = Literal["healthy", "unreachable", "draining", "breaker-open", "breaker-half-open", "full"]


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
