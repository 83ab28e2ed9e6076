"""When a fault is to happen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.proxy import Link

Fault = Callable[["Link"], None]


class Trap:
    """Faults, each of which happens once, in turn: as soon as so many tokens of one call have passed any proxy.

    A switch of nodes is a new call, which counts from 0 again.
    """

    def __init__(self) -> None:
        self.sprung = 0
        self._planned: deque[tuple[int, Fault]] = deque()

    def set(self, *planned: tuple[int, Fault]) -> None:
        self.sprung = 0
        self._planned = deque(planned)

    def due(self, tokens: int) -> Fault | None:
        """What is to happen once this many tokens are through. Ask before they are: the last of them may end the
        answer, and by the time they are through the next answer's faults may be set.
        """
        if self._planned and tokens >= self._planned[0][0]:
            return self._planned.popleft()[1]
        return None

    def spring(self, fault: Fault, link: Link) -> None:
        fault(link)
        self.sprung += 1
