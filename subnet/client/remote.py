"""One row of the node table."""

from __future__ import annotations

from subnet.client.breaker import Breaker
from subnet.node_info import NodeInfo, Resume
from subnet.protocols.base import Protocol


class Remote:
    """A node as this gateway knows it.

    `info` is what it last said of itself, None before the first answer; `fault` is why it gets no requests, None
    when it may; `running` counts the requests that this gateway has on it now.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.peer = protocol.peer
        self.info: NodeInfo | None = None
        self.fault: str | None = "not reached yet"
        self.running = 0
        self.busy_until = 0.0
        self.breaker = Breaker()

    def available(self, now: float) -> bool:
        return self.fault is None and now >= self.busy_until and self.breaker.allows(now)

    def serves(self, model: str | None) -> bool:
        return self.info is not None and not self.info.draining and model in (None, self.info.card.id)

    @property
    def resume(self) -> Resume:
        """What its engine can do for an answer that another node began."""
        return "continue" if self.info is None else self.info.capabilities.resume
