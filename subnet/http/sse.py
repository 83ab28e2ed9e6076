"""Incremental parser of server-sent events: WHATWG HTML living standard, section 9.2, "Server-sent events".

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import msgspec

from subnet.errors import WireError

_BOM = b"\xef\xbb\xbf"
# Far more than a server sends that has its request in a queue: a hundred comments a second, for ten minutes.
_MAX_IDLE_LINES = 1 << 16


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event: its `data` lines joined by newlines, and its `name`.

    A `comment` has its text as `data`; servers send comments as keep-alives.
    """

    data: str
    name: str = "message"
    comment: bool = False


class SseParser:
    """Parses a stream of events, however its bytes are split. Lines may end with LF, CRLF or CR, also mixed.

    Fields other than `data` and `event`, and events without data, are ignored. Invalid UTF-8 is replaced by replacement
    characters. An event or a comment of more than `limit` bytes raises WireError, and so do more than 65,536 lines
    without an event: comments, empty lines, and other fields. `idle_lines` counts them.
    """

    def __init__(self, limit: int = 16 << 20) -> None:
        self._limit = limit
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data: list[str] = []
        self._name = ""
        self._size = 0
        self.idle_lines = 0

    @property
    def between_events(self) -> bool:
        """True if all that was fed ended with a complete event or comment."""
        return not (self._line or self._data or self._name or self._size or self._after_cr or self._at_start)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes. Raises WireError."""
        if not data:
            return []
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        self._line += data
        if self._size + len(self._line) > self._limit or b"\n" in data or b"\r" in data:
            return self._parse_lines()
        return []

    def flush(self) -> list[Event]:
        """Return the last event, if its blank line is missing: browsers drop such an event, but servers rely on it."""
        return self.feed(b"\n\n")

    def _parse_lines(self) -> list[Event]:
        lines = self._line.splitlines(keepends=True)
        complete = not lines or lines[-1].endswith((b"\n", b"\r"))
        self._line = bytearray() if complete else lines.pop()
        events = [event for line in lines if (event := self._parse_line(bytes(line).rstrip(b"\r\n"))) is not None]
        if self.idle_lines > _MAX_IDLE_LINES:
            raise WireError(f"received more than {_MAX_IDLE_LINES} lines without an event")
        self._check_size(self._size + len(self._line))
        return events

    def _parse_line(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        self.idle_lines += 1
        if not line:
            return self._dispatch()
        if line.startswith(b":"):
            self._check_size(len(line))
            return Event(line[1:].decode(errors="replace").removeprefix(" "), "", comment=True)
        self._size += len(line)
        self._check_size(self._size)
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" ").decode(errors="replace"))
            self.idle_lines -= 1
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode(errors="replace")
        return None

    def _dispatch(self) -> Event | None:
        data, self._data = self._data, []
        name, self._name = self._name, ""
        self._size = 0
        if not data:
            return None
        self.idle_lines = 0
        return Event("\n".join(data), name or "message")

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise WireError(f"received an event of more than {self._limit} bytes")
