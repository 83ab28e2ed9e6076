"""One WebSocket to a node, shared by all calls of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import aiohttp

from subnet import columns, frames
from subnet.errors import NodeError, NodeLost, WireError, from_code
from subnet.messages import (
    Accepted,
    ArtefactReply,
    Cancel,
    Deltas,
    Failed,
    InfoReply,
    Message,
)
from subnet.outbox import Outbox
from subnet.protocols.inbox import Inbox

logger = logging.getLogger(__name__)


class Call:
    """One call on a connection, from its opening message to its end."""

    def __init__(self, number: int, outbox: Outbox) -> None:
        self.number = number
        self.inbox = Inbox()
        self.post = outbox.post


class Connection:
    """Demultiplexes what a node sends into the inboxes of its calls. Broken once, broken for good."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, peer: str) -> None:
        self._socket = socket
        self._peer = peer
        self._calls: dict[int, Inbox] = {}
        self._numbers = count(1)
        self._outbox = Outbox()
        self._error: NodeError | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    @property
    def alive(self) -> bool:
        return self._error is None

    @contextmanager
    def call(self) -> Iterator[Call]:
        """A new call; leaving before the node ended it cancels it there. Raises NodeLost on a broken connection."""
        if self._error is not None:
            raise NodeLost(self._error.message)
        call = Call(next(self._numbers), self._outbox)
        self._calls[call.number] = call.inbox
        try:
            yield call
        finally:
            if self._calls.pop(call.number, None) is not None:
                self._outbox.post(Cancel(call.number))

    def ended(self, call: Call) -> None:
        """The node has nothing more to say on this call."""
        self._calls.pop(call.number, None)

    async def aclose(self) -> None:
        self._break(NodeLost(f"the connection to {self._peer} was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        error: NodeError = NodeLost(f"the connection to {self._peer} was lost")
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    raise WireError(f"{self._peer} sent a {message.type.name} message")
                self._receive(frames.decode(message.data))
        except frames.UnknownFrame as unknown:
            error = unknown
        except WireError as broken:
            error = broken
        finally:
            self._break(error)
            # A peer that no longer makes sense gets no closing handshake to wait for.
            await self._socket.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=error.code.encode())

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._socket.send_bytes)
        except (ConnectionError, aiohttp.ClientError):
            self._break(NodeLost(f"the connection to {self._peer} was lost"))
        except Exception as error:
            # Nothing more can be sent, so nothing more may be awaited: the next call makes a new connection.
            logger.exception("cannot write to %s", self._peer)
            self._break(WireError(f"cannot write to {self._peer}: {error}"))
            await self._socket.close()

    def _receive(self, message: Message) -> None:
        match message:
            case Deltas():
                for number, delta in columns.unpack(message):
                    # A call that was cancelled a moment ago may still be spoken of.
                    if (inbox := self._calls.get(number)) is not None:
                        inbox.put(delta)
            case InfoReply(call=number) | ArtefactReply(call=number) | Accepted(call=number):
                if (inbox := self._calls.get(number)) is not None:
                    inbox.put(message)
            case Failed():
                if (inbox := self._calls.pop(message.call, None)) is not None:
                    inbox.fail(
                        from_code(message.code, message.message, retry_after=message.retry_after, param=message.param)
                    )
            case _:
                raise WireError(f"{self._peer} sent a {type(message).__name__}, which only clients send")

    def _break(self, error: NodeError) -> None:
        if self._error is not None:
            return
        self._error = error
        for inbox in self._calls.values():
            inbox.fail(error)
        self._calls.clear()
