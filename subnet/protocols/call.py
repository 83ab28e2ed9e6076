"""One call on a connection, from its opening message to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from subnet.errors import Unauthorized
from subnet.generation import Delta
from subnet.wire.messages import Reply


class Call:
    """What the connection to `peer` heard of call `number`, of which the `choices` are to be finished. `with` calls
    `leave` in the end.

    Deltas go to `take`: they are held until `flow` says where to, so that a node can be checked before anything of it
    is believed. A delta costs no wake-up of the task that waits here.
    """

    __slots__ = ("_error", "_held", "_leave", "_peer", "_reply", "_unfinished", "_waiter", "number", "take")

    def __init__(self, number: int, peer: str, leave: Callable[[Call], None], choices: Iterable[int] = ()) -> None:
        self.number = number
        self.take: Callable[[Delta], None] = self._hold
        self._peer = peer
        self._reply: Reply | None = None
        self._unfinished = set(choices)
        self._held: list[Delta] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._leave = leave

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self)
        # Both may lead back here, `take` as a method of its own, the error by the frames it was raised through: cycles.
        self.take, self._error = _nobody, None

    def flow(self, emit: Callable[[Delta], None]) -> None:
        """Give `emit` what was held, and from now on every delta."""
        self.take = emit
        held, self._held = self._held, []
        for delta in held:
            emit(delta)

    def replied(self, reply: Reply) -> None:
        self._reply = reply
        self._wake()

    def finished(self, choice: int) -> bool:
        """The last delta of a choice came; whether it was that of the last choice."""
        self._unfinished.discard(choice)
        if self._unfinished:
            return False
        self._wake()
        return True

    def failed(self, error: Exception) -> None:
        """Only the first failure counts."""
        self._error = self._error or error
        self._wake()

    async def reply(self) -> Reply:
        """The node's first word. Raises what the call failed with."""
        while self._reply is None:
            await self._moved()
        return self._reply

    async def end(self) -> None:
        """Wait until every choice has finished. Raises what the call failed with."""
        while self._unfinished:
            await self._moved()

    async def _moved(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hold(self, delta: Delta) -> None:
        if self._reply is None:
            raise Unauthorized(f"{self._peer} did not authenticate itself")
        self._held.append(delta)


def _nobody(delta: Delta) -> None: ...
