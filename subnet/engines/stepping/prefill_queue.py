"""Queue of prefill-only tasks: texts that are scored or embedded, not continued."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

from subnet.errors import SubnetError, to_subnet_error

ResultT = TypeVar("ResultT")


class PrefillTask(ABC, Generic[ResultT]):
    """Processing of one text by a model, in pieces."""

    @abstractmethod
    def advance(self) -> ResultT | None:
        """Process one more piece. Return the result after the last one, else None. Raises EngineFailed."""


class PrefillQueue:
    """Tasks in order of arrival. `add` and `fail` are called by the event loop, `advance` by the stepping thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: deque[tuple[PrefillTask[Any], asyncio.Future[Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def add(self, task: PrefillTask[ResultT]) -> asyncio.Future[ResultT]:
        """Append a task and return the future of its result. Cancelling the future stops the task after a piece."""
        result: asyncio.Future[ResultT] = self._loop.create_future()
        self._tasks.append((task, result))
        return result

    def advance(self) -> None:
        """Process a piece of the first task whose result is still wanted."""
        while self._tasks and self._tasks[0][1].done():
            self._tasks.popleft()
        if not self._tasks:
            return
        task, future = self._tasks[0]
        result: object
        try:
            result = task.advance()
        except BaseException as error:  # a panic of a library, too: the thread goes on
            result = to_subnet_error(error)
        if result is not None:
            self._tasks.popleft()
            self._loop.call_soon_threadsafe(_settle, future, result)

    def fail(self, error: SubnetError) -> None:
        """Fail all remaining tasks. Called after the stepping thread has ended."""
        for _, future in self._tasks:
            _settle(future, error)


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if future.done():
        return
    if isinstance(result, SubnetError):
        future.set_exception(result)
    else:
        future.set_result(result)
