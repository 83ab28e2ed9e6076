"""One WebSocket to a node, shared by all calls of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import count
from time import monotonic

import aiohttp

from subnet.errors import NodeError, NodeLost, WireError, from_code
from subnet.protocols.call import Call
from subnet.wire import columns, frames
from subnet.wire.messages import (
    Accepted,
    ArtefactReply,
    Cancel,
    Deltas,
    EmbedReply,
    Failed,
    InfoReply,
    Message,
    ScoreReply,
)
from subnet.wire.outbox import Outbox

logger = logging.getLogger(__name__)


class Connection:
    """Gives what a node sends to the calls that it belongs to. Broken once, broken for good. `heard` is when something
    last came, by time.monotonic."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, peer: str) -> None:
        self.last_received = 0.0
        self._socket = socket
        self._peer = peer
        self._calls: dict[int, Call] = {}
        self._fresh: set[int] = set()
        self._numbers = count(1)
        self._outbox = Outbox()
        self._error: NodeError | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    @property
    def alive(self) -> bool:
        return self._error is None

    def call(self, choices: Iterable[int] = ()) -> Call:
        """For `with`: a new call; leaving before the node ended it cancels it there. Raises NodeLost on a broken
        connection.
        """
        if self._error is not None:
            raise NodeLost(self._error.message)
        call = Call(next(self._numbers), self._peer, self._cancel, choices)
        self._calls[call.number] = call
        self._fresh.add(call.number)
        return call

    def post(self, message: Message) -> None:
        """Send it as soon as may be."""
        self._outbox.post(message)

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
                    raise WireError(f"{self._peer} sent a {message.type.name} message: expected a binary message")
                self.last_received = monotonic()
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
                self._deliver(message)
            case InfoReply() | ArtefactReply() | EmbedReply() | ScoreReply():
                if (call := self._calls.pop(message.call, None)) is not None:
                    call.replied(message)
            case Accepted():
                if (call := self._calls.get(message.call)) is not None:
                    call.replied(message)
            case Failed():
                if (call := self._calls.pop(message.call, None)) is not None:
                    call.failed(
                        from_code(message.code, message.message, retry_after=message.retry_after, param=message.param)
                    )
            case _:
                raise WireError(f"{self._peer} sent an unexpected {type(message).__name__}: only clients send it")

    def _deliver(self, deltas: Deltas) -> None:
        calls = self._calls
        for number, delta in self._rows(deltas):
            # A call that was cancelled a moment ago may still be spoken of.
            if (call := calls.get(number)) is None:
                continue
            try:
                take = call.take
                take(delta)
            except Exception as error:
                self._cancel(call)
                call.failed(error)
            else:
                if delta.finish_reason is not None and call.finished(delta.choice):
                    calls.pop(number, None)

    def _rows(self, deltas: Deltas) -> Iterable[columns.Row]:
        """Those of calls that have nothing yet come first: what others go on with may come a moment later."""
        rows = columns.unpack(deltas)
        if not self._fresh or not (fresh := self._fresh.intersection(columns.call_numbers(deltas))):
            return rows
        ordered = sorted(rows, key=lambda row: row[0] not in fresh)
        # A sign of life is nothing yet.
        self._fresh.difference_update(number for number, delta in ordered if delta.tokens)
        return ordered

    def _cancel(self, call: Call) -> None:
        self._fresh.discard(call.number)
        if self._calls.pop(call.number, None) is not None:
            self._outbox.post(Cancel(call.number))

    def _break(self, error: NodeError) -> None:
        if self._error is not None:
            return
        self._error = error
        for call in self._calls.values():
            # Each its own: an error holds the frames it is raised through, and this connection holds `error`.
            call.failed(type(error)(error.message))
        self._calls.clear()
