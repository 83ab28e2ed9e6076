"""Trigger of planned faults by the number of tokens passed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.proxy import Link

Fault = Callable[["Link"], None]


class Trap:
    """Planned faults, each of which happens once, in order, as soon as a number of tokens of one call have passed any
    proxy.

    After a failover there is a new call, whose tokens are counted from 0.
    """

    def __init__(self) -> None:
        self.sprung = 0
        self._planned: deque[tuple[int, Fault]] = deque()

    def set(self, *planned: tuple[int, Fault]) -> None:
        self.sprung = 0
        self._planned = deque(planned)

    def due(self, tokens: int) -> Fault | None:
        """Return the fault to cause at this number of tokens, or None. Call it before they are passed on: the last of
        them may end the answer, and then the faults of the next answer may already be planned.
        """
        if self._planned and tokens >= self._planned[0][0]:
            return self._planned.popleft()[1]
        return None

    def spring(self, fault: Fault, link: Link) -> None:
        fault(link)
        self.sprung += 1
