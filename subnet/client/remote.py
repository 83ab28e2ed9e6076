"""One row of the node table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subnet.client.breaker import Breaker
from subnet.client.status import Status, status_of
from subnet.node_info import Lane, NodeInfo, Resume
from subnet.protocols.base import Protocol

if TYPE_CHECKING:
    from subnet.client.lease import Lease


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
