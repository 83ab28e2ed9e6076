"""WebSocket connection to a node, shared by all calls of this process.

The path of a token, from a frame to the socket of a client. Each arrow is one call of a bound method that was handed
down when the request began, all of one type: `Sink[T]`, a function that takes a T. No task is switched, and nothing is
awaited or queued on the way.

    frame, with the new tokens of all answers on this connection
        | Connection._receive, ._dispatch
        v
    Call.on_delta                 Sink[Delta]    subnet/protocols/call.py
        v
    AttemptReceiver.receive       Sink[Delta]    subnet/client/race.py: timeouts, replays, the ledger
        v
    TokenGeneration               Sink[Delta]    adapter/generation/token_lane.py: which choice
        v
    ChoiceReader.feed                            adapter/decode/choice.py: text, stop strings, tool calls, logprobs
        v
    ChunkWriter.emit              Sink[Event]    adapter/api/chat/stream.py: the JSON of a chunk
        v
    ResponseWriter.write          Sink[bytes]    adapter/server/response_writer.py: one write per client and iteration
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import count
from time import monotonic

import aiohttp

from subnet.aio import Turn
from subnet.errors import NodeBusy, NodeDied, NodeError, NodeLost, WireError, from_code
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
    Reply,
    ScoreReply,
    Signed,
    TokenizeReply,
)
from subnet.wire.outbox import Outbox

logger = logging.getLogger(__name__)

# When to ask a node again that has not read what it was sent, in seconds.
_READ_RETRY = 0.2
# Messages that a node may send for a call after its end, as they were on the way when it was cancelled.
_MAX_LATE_MESSAGES = 4
# Rows for calls that have ended that a node may send, besides as many as it sends for others: its whole queue, twice.
_MAX_LATE_ROWS = 1 << 19


class Connection:
    """Dispatches the messages of a node to the calls that they belong to. A failed connection is never used again.

    `last_received` is the time of the last message, by time.monotonic; 0 before the first. `node` is the id of the node
    at the other end, which it has proved; None as long as it has not.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, peer: str) -> None:
        self.last_received = 0.0
        self.node: str | None = None
        self._socket = socket
        self._peer = peer
        self._calls: dict[int, Call] = {}
        # Calls that have not received a token yet.
        self._tokenless: set[int] = set()
        self._numbers = count(1)
        self._last_number = 0
        self._outbox = Outbox()
        self._late_messages = 0
        # Rows for calls that have ended, less the others.
        self._late_rows = 0
        self._error: NodeError | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    @property
    def is_open(self) -> bool:
        return self._error is None

    def open_call(self, choices: Iterable[int] = ()) -> Call:
        """Return a new call, for `with`: leaving the block before the call has ended cancels it on the node.

        Raises NodeLost if the connection has failed, and NodeBusy while too much waits to be sent.
        """
        if self._error is not None:
            raise NodeLost(self._error.message)
        if self._outbox.full:
            raise NodeBusy(f"the data that {self._peer} has not read exceeds the maximum", retry_after=_READ_RETRY)
        call = Call(next(self._numbers), self._peer, self._cancel, choices)
        self._last_number = call.number
        self._calls[call.number] = call
        self._tokenless.add(call.number)
        return call

    def post(self, message: Message) -> None:
        """Queue `message` to be sent."""
        self._outbox.post(message)

    async def aclose(self) -> None:
        """Close the connection, and fail its calls."""
        self._fail(NodeLost(f"the connection to {self._peer} was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        error: NodeError | None = None
        turn = Turn()
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    raise WireError(f"{self._peer} sent a {message.type.name} message: expected a binary message")
                self.last_received = began = monotonic()
                self._receive(frames.decode(message.data))
                if turn.took(monotonic() - began):
                    await asyncio.sleep(0)
        except frames.UnknownFrame as unknown:
            error = unknown
        except WireError as invalid:
            error = invalid
        finally:
            error = error or self._loss()
            self._fail(error)
            # The peer may not follow the protocol, so the closing handshake is not waited for.
            await self._socket.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=error.code.encode())

    def _loss(self) -> NodeError:
        """Return the error of a connection that has ended: without a closing frame, the node's process is gone."""
        is_timeout = isinstance(self._socket.exception(), TimeoutError)
        if self._socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE and not is_timeout:
            return NodeDied(f"{self._peer} closed the connection without notice")
        return NodeLost(f"the connection to {self._peer} was lost")

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._socket.send_bytes)
        except (ConnectionError, aiohttp.ClientError):
            self._fail(NodeLost(f"the connection to {self._peer} was lost"))
        except Exception as error:
            # Calls could wait forever on a connection that cannot send; the next call opens a new one.
            logger.exception("cannot write to %s", self._peer)
            self._fail(WireError(f"cannot write to {self._peer}: {error}"))
            await self._socket.close()

    def _receive(self, message: Message) -> None:
        match message:
            case Deltas():
                self._dispatch(message)
            case (
                InfoReply()
                | ArtefactReply()
                | EmbedReply()
                | ScoreReply()
                | TokenizeReply()
                | Accepted()
                | Failed()
                | Signed()
            ):
                if (call := self._calls.get(message.call)) is None:
                    self._count_late_message(message.call)
                else:
                    self._answer(call, message)
            case _:
                raise WireError(f"{self._peer} sent an unexpected {type(message).__name__}: only clients send it")

    def _answer(self, call: Call, message: Reply | Signed | Failed) -> None:
        # What is signed is decoded after its signature was checked; the type of a frame is in its header.
        kind = frames.type_of(message.content) if isinstance(message, Signed) else type(message)
        if kind is not Accepted:
            del self._calls[call.number]
        if isinstance(message, Failed):
            call.fail(from_code(message.code, message.message, retry_after=message.retry_after, param=message.param))
        else:
            call.set_reply(message)

    def _count_late_message(self, number: int) -> None:
        """Count a message for a call that has ended. Raises WireError if it never existed, or there are too many."""
        # 0: the node did not know the type of a frame.
        self._late_messages += 1
        if number > self._last_number or self._late_messages > _MAX_LATE_MESSAGES * (self._last_number + 1):
            raise WireError(f"{self._peer} answered a call that does not exist")

    def _count_late_rows(self, late: list[int], total: int) -> None:
        """Do the same for the rows of a frame with `total` rows, of which those for the calls `late` were too late."""
        self._late_rows = max(0, self._late_rows + 2 * len(late) - total)
        if max(late, default=0) > self._last_number or not total or self._late_rows > _MAX_LATE_ROWS:
            raise WireError(f"{self._peer} sent tokens of calls that do not exist")

    def _dispatch(self, deltas: Deltas) -> None:
        calls = self._calls
        late: list[int] = []
        for number, delta in self._rows(deltas):
            # The node may not have received the cancellation of the call yet.
            if (call := calls.get(number)) is None:
                late.append(number)
                continue
            try:
                on_delta = call.on_delta
                on_delta(delta)
            except Exception as error:
                self._cancel(call)
                call.fail(error)
            else:
                if delta.finish_reason is not None and call.finish_choice(delta.choice):
                    calls.pop(number, None)
        if late or self._late_rows or not deltas.calls:
            self._count_late_rows(late, len(deltas.calls) // 4)

    def _rows(self, deltas: Deltas) -> Iterable[columns.Row]:
        """Return the rows of a frame, calls that wait for their first token first."""
        rows = columns.unpack(deltas)
        if not self._tokenless or not (tokenless := self._tokenless.intersection(columns.call_numbers(deltas))):
            return rows
        ordered = sorted(rows, key=lambda row: row[0] not in tokenless)
        # Keep-alives have no tokens.
        self._tokenless.difference_update(number for number, delta in ordered if delta.tokens)
        return ordered

    def _cancel(self, call: Call) -> None:
        self._tokenless.discard(call.number)
        if self._calls.pop(call.number, None) is not None:
            self._outbox.post(Cancel(call.number))

    def _fail(self, error: NodeError) -> None:
        if self._error is not None:
            return
        self._error = error
        for call in self._calls.values():
            # A new error for each call: `error` is kept here, and would keep the tracebacks of all calls alive.
            call.fail(type(error)(error.message))
        self._calls.clear()
