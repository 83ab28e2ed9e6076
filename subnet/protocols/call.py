"""State of one call on a connection, from its first message to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from subnet.aio import Sink
from subnet.errors import Unauthorized
from subnet.generation import Delta
from subnet.wire.messages import Reply, Signed


class Call:
    """Receiver of the messages for call `number` of the connection to `peer`.

    The call ends once all `choices` are finished. Leaving the `with` block calls `on_exit`.

    The connection passes each delta to `on_delta`, which buffers it until `forward_to` sets a sink, so that a node can
    be authenticated before any of its tokens are used. A delta does not wake up the waiting task.
    """

    __slots__ = ("_buffered", "_error", "_on_exit", "_peer", "_reply", "_unfinished", "_waiter", "number", "on_delta")

    def __init__(self, number: int, peer: str, on_exit: Callable[[Call], None], choices: Iterable[int] = ()) -> None:
        self.number = number
        self.on_delta: Sink[Delta] = self._buffer
        self._peer = peer
        self._reply: Reply | Signed | None = None
        self._unfinished = set(choices)
        self._buffered: list[Delta] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_exit = on_exit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_exit(self)
        # Both may refer to this call and form a cycle: `on_delta` as a bound method, the error through its traceback.
        self.on_delta, self._error = _discard, None

    def forward_to(self, emit: Sink[Delta]) -> None:
        """Pass the buffered deltas, and from now on every delta, to `emit`."""
        self.on_delta = emit
        buffered, self._buffered = self._buffered, []
        for delta in buffered:
            emit(delta)

    def set_reply(self, reply: Reply | Signed) -> None:
        self._reply = reply
        self._wake()

    def finish_choice(self, choice: int) -> bool:
        """Record that a choice is finished. Return whether all choices are."""
        self._unfinished.discard(choice)
        if self._unfinished:
            return False
        self._wake()
        return True

    def fail(self, error: Exception) -> None:
        """End the call with `error`, unless it has already failed."""
        self._error = self._error or error
        self._wake()

    async def reply(self) -> Reply | Signed:
        """Wait for the node's reply, whose signature is not checked yet. Raises the error of a failed call."""
        while self._reply is None:
            await self._wait()
        return self._reply

    async def finished(self) -> None:
        """Wait until all choices are finished. Raises the error of a failed call."""
        while self._unfinished:
            await self._wait()

    async def _wait(self) -> None:
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

    def _buffer(self, delta: Delta) -> None:
        if self._reply is None:
            raise Unauthorized(f"{self._peer} did not authenticate itself")
        self._buffered.append(delta)


def _discard(delta: Delta) -> None: ...
