"""Those who wait for room on nodes that are full, and who of them is next."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from types import TracebackType

from subnet.errors import NodeBusy

# How often those who are not first look whether they still want to wait, in seconds.
_SELDOM = 0.25


class Line:
    """One line for each model: the smaller `priority` is first, of the same priority who came first.

    Only the first looks for room, so that nobody overtakes. It is asked to look by `stir`, and again when it waited as
    long as it wanted; the next one looks as soon as the first is gone.
    """

    def __init__(self) -> None:
        self._waiting: dict[str | None, list[Place]] = {}
        self._arrivals = count()

    def place(self, model: str | None, priority: int = 0) -> Place:
        """A place of one who came now, to be taken as often as there is something to wait for."""
        return Place(self._waiting, model, (priority, next(self._arrivals)))

    def waits(self, model: str | None) -> bool:
        """Whether anybody is in line."""
        return model in self._waiting

    def stir(self, model: str | None) -> None:
        """There may be room now on a node that serves `model`."""
        _wake(self._waiting.get(model, ()))


class Place:
    """`with place:` stands in line; leaving lets the next one look."""

    def __init__(self, waiting: dict[str | None, list[Place]], model: str | None, order: tuple[int, int]) -> None:
        self.order = order
        self._model = model
        self._waiting = waiting
        self._stirred: asyncio.Event | None = None

    @property
    def first(self) -> bool:
        return self._waiting[self._model][0] is self

    def check(self) -> None:
        """Raises NodeBusy for who is not first."""
        if not self.first:
            raise NodeBusy("all nodes are at capacity and other requests are queued", retry_after=1.0)

    async def wait(self, seconds: float) -> None:
        """Until there may be room for this one: for the first at most so many seconds, the others look more seldom."""
        self._stirred = self._stirred or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.first else max(seconds, _SELDOM)):
                await self._stirred.wait()
        self._stirred.clear()

    def wake(self) -> None:
        """It may wait, or be about to."""
        self._stirred = self._stirred or asyncio.Event()
        self._stirred.set()

    def __enter__(self) -> Place:
        insort(self._waiting.setdefault(self._model, []), self, key=_order)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        line = self._waiting[self._model]
        del line[bisect_left(line, self.order, key=_order)]
        if not line:
            del self._waiting[self._model]
        _wake(line)


def _order(place: Place) -> tuple[int, int]:
    return place.order


def _wake(line: Sequence[Place]) -> None:
    if line:
        line[0].wake()
