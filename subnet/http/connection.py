"""One HTTP/1.1 connection to a server, whose responses are passed on as their bytes arrive.

    socket --> Connection.data_received --> ResponseParser.feed --> BodyReceiver.feed --> ...

Each arrow is a plain call. No task is switched for a part of a body, only once at the end of a response.

Of a server that sends faster than its bytes are processed, a part is parsed in each iteration of the event loop, and
the rest waits, so that the streams of other servers are not kept waiting.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import cast

from subnet.errors import ResponseLost, WireError
from subnet.http.response_parser import BodyReceiver, InvalidResponseError, ResponseHead, ResponseParser

# Time to wait for the end of a response of which nothing more is needed, so that the connection can be reused. In
# seconds.
_DRAIN_TIMEOUT = 0.05
# Bytes to parse in one iteration: of a body as it is, and of one that is compressed, where each can become a thousand.
_MAX_PART = 16 << 10
_MAX_COMPRESSED_PART = 256
# Before the end of the head it is not known which it is.
_END_OF_HEAD = b"\r\n\r\n"

OnHead = Callable[[ResponseHead], BodyReceiver]
"""Receives the head of a response, and returns the receiver of its body."""


class Connection(asyncio.Protocol):
    """Connection to `peer` for one request at a time.

    `on_idle` is called with the last head when the connection can be used for another request, and `on_closed` once it
    is closed. `unanswered` is True if it was lost before a byte of a response to its last request.
    """

    __slots__ = (
        "_drain_timer",
        "_finished",
        "_is_clean_end",
        "_max_part",
        "_next_part",
        "_on_closed",
        "_on_idle",
        "_parser",
        "_peer",
        "_transport",
        "_unparsed",
        "unanswered",
    )

    def __init__(
        self,
        peer: str,
        on_idle: Callable[[Connection, ResponseHead], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.unanswered = False
        self._peer = peer
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._finished: asyncio.Future[ResponseHead] | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self._unparsed = bytearray()
        # Size up to which received bytes are parsed at once; -1 while others wait, which must be first.
        self._max_part = _MAX_COMPRESSED_PART
        self._next_part: asyncio.Handle | None = None
        self._is_clean_end: bool | None = None

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def exchange(self, request: bytes, on_head: OnHead) -> ResponseHead:
        """Send a request, pass its response to the receiver that `on_head` returns, and return the head.

        Returns at the end of the response, or as soon as the receiver is done. Cancelling the call closes the
        connection. Raises ResponseLost if the connection is lost, WireError for an invalid response, and any error that
        the receiver raises.
        """
        if self._transport is None:
            self.unanswered = True
            raise self._lost()
        finished: asyncio.Future[ResponseHead] = asyncio.get_running_loop().create_future()
        self._finished = finished
        self._parser = ResponseParser(on_head)
        self._max_part = _MAX_COMPRESSED_PART
        self._transport.write(request)
        try:
            return await finished
        finally:
            if not finished.done() or finished.cancelled():
                self.abort()
            # Its error refers to this frame: this breaks the cycle.
            del finished

    def abort(self) -> None:
        """Close the connection at once. A request on it is lost."""
        finished, self._finished, self._parser = self._finished, None, None
        self._unparsed.clear()
        if finished is not None and not finished.done():
            finished.set_exception(self._lost())
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if len(data) > self._max_part:
            self._unparsed += data
            if self._next_part is None:
                self._parse_parts()
            return
        parser = self._parser
        if parser is None:
            # Nothing was requested.
            self.abort()
            return
        try:
            if not parser.feed(data):
                return
            if parser.complete and parser.body is not None and not parser.body.done:
                parser.body.end()
        except Exception as error:
            self._fail(error)
        else:
            if parser.complete:
                self._complete(parser)
            elif self._finished is not None:
                self._drain(parser)

    def _parse_parts(self) -> None:
        """Parse as much of what was received as may be in this iteration of the event loop."""
        self._next_part = None
        self._max_part, left = sys.maxsize, _MAX_PART
        while self._unparsed and left > 0:
            size, cost = self._part_size()
            part = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            left -= cost * len(part)
            self.data_received(part)
        if self._unparsed:
            self._max_part = -1
            self._next_part = asyncio.get_running_loop().call_soon(self._parse_parts)
        else:
            self._max_part = self._part_size()[0]
        self._set_reading(reading=not self._unparsed)
        if self._is_clean_end is not None and not self._unparsed:
            self._close(is_clean=self._is_clean_end)

    def _part_size(self) -> tuple[int, int]:
        """Return how many bytes may be parsed at once, and what share of an iteration each of them is."""
        if self._parser is None or (head := self._parser.head) is None:
            end = self._unparsed.find(_END_OF_HEAD)
            return (end + len(_END_OF_HEAD) if end >= 0 else _MAX_COMPRESSED_PART), 1
        if head.headers.get("content-encoding", "identity") == "identity":
            return _MAX_PART, 1
        return _MAX_COMPRESSED_PART, _MAX_PART // _MAX_COMPRESSED_PART

    def _set_reading(self, *, reading: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or transport.is_reading() == reading:
            return
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._unparsed:
            self._is_clean_end = error is None
        else:
            self._close(is_clean=error is None)

    def _close(self, *, is_clean: bool) -> None:
        if self._parser is not None:
            self._end(self._parser, is_clean=is_clean)
        self._stop_draining()
        self._on_closed(self)

    def _end(self, parser: ResponseParser, *, is_clean: bool) -> None:
        """End a response with the connection: that is the end of some bodies, and truncates all others."""
        try:
            if not (is_clean and parser.feed_eof()):
                self.unanswered = not parser.started
                raise self._lost()
            if parser.body is not None and not parser.body.done:
                parser.body.end()
        except Exception as error:
            self._fail(error)
        else:
            self._finish(parser)

    def _complete(self, parser: ResponseParser) -> None:
        self._finish(parser)
        self._parser = None
        self._stop_draining()
        transport = self._transport
        if transport is None:
            return
        # A server that answers before it has read the request may not read the rest of it.
        is_sent = not transport.is_closing() and not transport.get_write_buffer_size()
        if parser.keep_alive and parser.head is not None and is_sent and not self._unparsed:
            self._on_idle(self, parser.head)
        else:
            transport.close()

    def _drain(self, parser: ResponseParser) -> None:
        """Receive the bytes that may follow the last one that was needed, for a short time."""
        self._finish(parser)
        self._drain_timer = asyncio.get_running_loop().call_later(_DRAIN_TIMEOUT, self.abort)

    def _stop_draining(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None

    def _finish(self, parser: ResponseParser) -> None:
        finished, self._finished = self._finished, None
        if finished is not None and not finished.done():
            assert parser.head is not None
            finished.set_result(parser.head)

    def _fail(self, error: Exception) -> None:
        # Before the error is passed on: its traceback refers to this object.
        finished, self._finished = self._finished, None
        self.abort()
        if finished is not None and not finished.done():
            finished.set_exception(_translated(error, self._peer))

    def _lost(self) -> ResponseLost:
        return ResponseLost(f"the connection to {self._peer} was lost")


def _translated(error: Exception, peer: str) -> Exception:
    if not isinstance(error, InvalidResponseError):
        return error
    wire_error = WireError(f"{peer} sent an invalid HTTP response")
    wire_error.__cause__ = error
    return wire_error
