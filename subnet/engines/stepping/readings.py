"""Texts that are read and not continued, one after the other."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

from subnet.errors import EngineFailed, SubnetError

ResultT = TypeVar("ResultT")


class Reading(ABC, Generic[ResultT]):
    """One text on its way through a model, a piece at a time."""

    @abstractmethod
    def advance(self, rows: int) -> ResultT | None:
        """Read `rows` more tokens; what was wanted of the text, once all are read. Raises EngineFailed."""


class Readings:
    """`add` and `fail` are for the event loop's thread, `advance` for the stepping thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: deque[tuple[Reading[Any], asyncio.Future[Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._asked)

    def add(self, reading: Reading[ResultT]) -> asyncio.Future[ResultT]:
        """What will come of it. Cancelling that ends the reading before its next piece."""
        result: asyncio.Future[ResultT] = self._loop.create_future()
        self._asked.append((reading, result))
        return result

    def advance(self, rows: int) -> bool:
        """Read a piece of the text whose turn it is; whether that took all of `rows`."""
        while self._asked and self._asked[0][1].done():
            self._asked.popleft()
        if not self._asked:
            return False
        reading, future = self._asked[0]
        result: object
        try:
            result = reading.advance(rows)
        except Exception as error:
            result = known(error)
        if result is not None:
            self._asked.popleft()
            self._loop.call_soon_threadsafe(_settle, future, result)
        return result is None

    def fail(self, error: SubnetError) -> None:
        """All that is left, once the stepping thread has ended."""
        for _, future in self._asked:
            _settle(future, error)


def known(error: Exception) -> SubnetError:
    return error if isinstance(error, SubnetError) else EngineFailed(f"{type(error).__name__}: {error}")


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if future.done():
        return
    if isinstance(result, SubnetError):
        future.set_exception(result)
    else:
        future.set_result(result)
