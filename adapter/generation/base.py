"""What an endpoint knows of an answer in the making, whichever way it comes about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from adapter.generation.events import Event
from adapter.generation.usage import Usage
from subnet import SessionManager
from subnet.client.ledger.base import Ledger
from subnet.node_info import ModelCard


class Answer(ABC):
    """Of the model that `card` describes. `usage`, and in `ledger` the nodes asked, hold at any time, also for a cut
    one; `ledger` is None before nodes are asked.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def fingerprint(self) -> str: ...

    @property
    @abstractmethod
    def card(self) -> ModelCard: ...

    @property
    @abstractmethod
    def usage(self) -> Usage: ...

    @property
    @abstractmethod
    def ledger(self) -> Ledger[Any] | None: ...

    @abstractmethod
    async def run(
        self, sessions: SessionManager, emit: Callable[[Event], None], *, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        """Emit the answer's events as they come. Cancelling the call cancels the work on the node. While it
        is not `may_queue`, it does not wait for room. Raises SubnetError.
        """
