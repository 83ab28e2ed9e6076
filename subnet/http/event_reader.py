"""Events of a response body, passed to a sink without a task switch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

from subnet.aio import Sink, stream_from_callback
from subnet.errors import WireError
from subnet.http.bodies import parse_json
from subnet.http.sse import Event, SseParser

# Limit of the events of one response, in bytes, for servers that never end one.
_MAX_EVENT_BYTES = 256 << 20
# Limit of one JSON value in place of events, in bytes: the same as that of one event.
_MAX_JSON = 16 << 20
# What may precede JSON: white space, and a byte order mark.
_SPACE = b" \t\r\n\xef\xbb\xbf"
_CR, _LF = b"\r\n"


class EventSink(Protocol):
    """Receiver of the events of a response. `done` is True once it needs no further ones.

    `is_json` is set before the only event if the server sent one JSON value instead of events; its text is the data of
    that event.
    """

    done: bool
    is_json: bool

    def data(self, data: bytes) -> None:
        """Receive the data of an event that has nothing else: no name, and one line, which may be invalid UTF-8."""

    def event(self, event: Event) -> None:
        """Receive any other event, or a comment."""


class EventStream:
    """Events of a response as an asynchronous iterable, up to [DONE]. `respond` passes them to a sink."""

    def __init__(self, respond: Callable[[EventSink], Coroutine[Any, Any, None]]) -> None:
        self.done = False
        self.is_json = False
        self._respond = respond
        self._put: Sink[Event] | None = None
        self._events = stream_from_callback(self._run)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def aclose(self) -> None:
        await self._events.aclose()

    def data(self, data: bytes) -> None:
        self.event(Event(data.decode(errors="replace")))

    def event(self, event: Event) -> None:
        assert self._put is not None
        self.done = event.data == "[DONE]" and not event.comment
        self._put(event)

    async def _run(self, put: Sink[Event]) -> None:
        self._put = put
        await self._respond(self)


class EventReader:
    """Reader of the body of a response of `peer`; passes its events to `sink`.

    Events and one JSON value are told apart by the first character, as some servers declare one as the other.
    `check_json` raises an error for a JSON value that is an error.
    """

    __slots__ = (
        "_between_events",
        "_check_json",
        "_json",
        "_parsed",
        "_parser",
        "_peer",
        "_sink",
        "_size",
        "_started",
        "done",
    )

    def __init__(self, peer: str, sink: EventSink, check_json: Callable[[Any], object]) -> None:
        self.done = False
        self._peer = peer
        self._sink = sink
        self._check_json = check_json
        self._parser = SseParser()
        self._json: bytearray | None = None
        self._size = 0
        # Of it, what has been read up to the last part without an event.
        self._parsed = 0
        self._started = False
        self._between_events = False

    def feed(self, data: bytes) -> None:
        """Pass on the events that `data` completes. Raises WireError, and the errors of the sink."""
        self._size = size = self._size + len(data)
        # Slices and numbers: methods of bytes, and bytes as operands of `in`, cost several times as much.
        if self._between_events and data[-2:] == b"\n\n" and _CR not in data and size <= _MAX_EVENT_BYTES:
            # Nearly always: whole events, of one line each.
            line = data[6:-2]
            if data[:6] == b"data: " and _LF not in line:
                if not self.done:
                    sink = self._sink
                    sink.data(line)
                    self.done = sink.done
                return
            blocks = data.split(b"\n\n")
            if 2 * (len(blocks) - 1) == data.count(b"\n"):
                del blocks[-1]
                self._pass_on(blocks, size - len(data))
                return
        self._feed_any(data)

    def end(self) -> None:
        """Pass on the last event, even if its blank line is missing. Raises the same errors."""
        if self.done:
            return
        if self._json is None:
            self._parse(b"\n\n")
            return
        text = bytes(self._json)
        self._check_json(parse_json(text, self._peer))
        self._sink.is_json = True
        self._sink.event(Event(text.decode(errors="replace")))

    def _pass_on(self, blocks: list[bytes], before: int) -> None:
        """Pass on the events of a read that had `before` bytes before it."""
        sink, others = self._sink, 0
        for block in blocks:
            if self.done:
                return
            if block.startswith(b"data: "):
                sink.data(block[6:])
                self.done = sink.done
            else:
                if not others:
                    self._note_events(before)
                others += 1
                self._parse(block + b"\n\n")
        if others == len(blocks):
            self._parsed = self._size

    def _feed_any(self, data: bytes) -> None:
        limit = _MAX_EVENT_BYTES if self._json is None else _MAX_JSON
        if self._size > limit:
            raise WireError(f"{self._peer} sent more than {limit} bytes")
        self._note_events(self._size - len(data))
        self._parsed = self._size
        if not self._started:
            data = self._start(data)
        if self._json is None:
            self._parse(data)
        else:
            self._json += data

    def _note_events(self, before: int) -> None:
        """Tell the parser if there were events that it has not seen, among the `before` bytes before a read."""
        if self._parsed < before:
            self._parser.idle_lines = 0

    def _start(self, data: bytes) -> bytes:
        """Return the rest of `data` after white space, and find out what it is."""
        data = data.lstrip(_SPACE)
        self._started = bool(data)
        if data.startswith(b"<"):
            raise WireError(f"{self._peer} answered with an HTML page")
        if data.startswith((b"{", b"[")):
            self._json = bytearray()
        return data

    def _parse(self, data: bytes) -> None:
        if not self._started:
            return
        for event in self._parser.feed(data):
            if self.done:
                return
            self._sink.event(event)
            self.done = self._sink.done
        self._between_events = self._parser.between_events
