"""How nodes are, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from subnet.errors import NodeBusy, NoNodeAvailable, RateLimited

if TYPE_CHECKING:
    from subnet.client.remote import Remote

NodeState = Literal["healthy", "away", "draining", "breaker-open", "breaker-half-open", "full"]


class Status(msgspec.Struct, frozen=True):
    """`why` it gets no requests, or fewer, None when it is healthy; `seconds` it has been so."""

    state: NodeState
    why: str | None
    seconds: float


def status_of(remote: Remote, now: float) -> tuple[NodeState, str | None]:
    """The state, and why."""
    if remote.fault is not None or remote.info is None:
        return "away", remote.fault
    if remote.info.draining:
        return "draining", "it is about to end: running answers finish, new ones go elsewhere"
    match remote.breaker.state(now):
        case "open":
            wait = remote.breaker.wait(now)
            return "breaker-open", f"{_failures(remote)}; to be tried again in {wait:.1f} s"
        case "half-open":
            under_way = "one request tries it" if not remote.breaker.allows(now) else "the next request tries it"
            return "breaker-half-open", f"{_failures(remote)}; {under_way}"
        case "closed":
            return _fullness(remote, now)


def refusal(able: Sequence[Remote], now: float) -> NodeBusy | NoNodeAvailable:
    """Why none of these takes a request now, and when one may."""
    busy = [remote.busy_until - now for remote in able if remote.busy_until > now]
    if busy and all(remote.limited for remote in able if remote.busy_until > now or remote.filled):
        return RateLimited("every server is asked more often than it may be", retry_after=min(busy))
    if busy or any(remote.filled for remote in able):
        return NodeBusy("every node is at its capacity", retry_after=min(busy, default=1.0))
    wait = min(remote.breaker.wait(now) for remote in able)
    return NoNodeAvailable("every node that serves the model is failing", retry_after=wait or None)


def _failures(remote: Remote) -> str:
    return f"{remote.breaker.reason}, the last: {remote.trouble}"


def _fullness(remote: Remote, now: float) -> tuple[NodeState, str | None]:
    if (wait := remote.busy_until - now) > 0:
        if remote.limited:
            return "full", f"it was asked too often; to be asked again in {wait:.1f} s"
        return "full", f"it refused a request for want of room; to be asked again in {wait:.1f} s"
    info = remote.info
    if info is not None and remote.filled:
        return "full", f"all of its {info.capacity} slots are taken from here"
    if info is not None and info.running >= info.capacity:
        return "full", f"it said that all of its {info.capacity} slots are taken"
    return "healthy", None
