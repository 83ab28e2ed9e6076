"""What one call has received and not yet handed on."""

from __future__ import annotations

import asyncio
from collections import deque

from subnet.generation import Delta
from subnet.messages import Accepted, ArtefactReply, InfoReply

Received = InfoReply | ArtefactReply | Accepted | Delta


class Inbox:
    """A queue with one reader; putting never waits, and costs a wake-up only if the reader sleeps.

    It needs no bound of its own: a stream holds at most the tokens of one answer.
    """

    def __init__(self) -> None:
        self._items: deque[Received] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    def put(self, item: Received) -> None:
        self._items.append(item)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Raise `error` at the reader, after what was put before it. Only the first failure counts."""
        self._error = self._error or error
        self._wake()

    async def get(self) -> Received:
        while not self._items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
