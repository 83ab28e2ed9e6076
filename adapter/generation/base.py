"""Work that one model does for a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from adapter.decode.events import Event
from adapter.decode.usage import Usage
from subnet import SessionManager
from subnet.aio import Sink
from subnet.client.ledger.base import Ledger
from subnet.node_info import ModelCard

Start = Callable[[], Sink[Event]]
"""Makes what takes the events of a generation from its beginning."""


class Asked(Protocol):
    """The nodes that were asked for one answer, in order: their `nodes` (names) and `peers` (addresses)."""

    nodes: list[str]
    peers: list[str]


class Work(ABC):
    """Work that the model of `card` does for a request.

    `usage`, and in `asked` the nodes that were asked for each answer, hold at any time, also when it was cut; `asked`
    is empty as long as no node was needed.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def card(self) -> ModelCard: ...

    @property
    @abstractmethod
    def usage(self) -> Usage: ...

    @property
    def asked(self) -> Sequence[Asked]:
        return ()

    async def run(  # noqa: B027 not all work needs nodes
        self, sessions: SessionManager, emit: Sink[Event], *, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        """Does what needs nodes, and emits events as they come. Cancelling the call cancels the work on the nodes.

        While `may_queue` returns False, it does not wait for capacity. Raises SubnetError.
        """


class Generation(Work):
    """One answer, on either lane. `ledger` is None before nodes are asked."""

    __slots__ = ()

    @property
    @abstractmethod
    def fingerprint(self) -> str: ...

    @property
    @abstractmethod
    def ledger(self) -> Ledger[Any] | None: ...

    @property
    def asked(self) -> Sequence[Asked]:
        ledger = self.ledger
        return () if ledger is None or not ledger.nodes else (ledger,)
