"""Incremental parser of an HTTP/1.1 response: RFC 9112."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import msgspec

MAX_HEAD = 64 << 10
"""Limit of the head with all interim responses, and of the trailer, in bytes."""
MAX_FIELDS = 100

# Limit of one line with the size of a chunk and its extensions, and of all extensions of a response, in bytes.
_MAX_SIZE_LINE = 1024
# Length of a line that has no extensions worth counting.
_SHORT_LINE = 8
_MAX_EXTENSIONS = 1 << 20

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
# A line that begins with white space continues the one before: RFC 9112, section 5.2.
_FOLD = re.compile(rb"\r?\n[ \t]+")
_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH = re.compile(r"\d{1,15}", re.ASCII)
_NO_BODY = (204, 304)


class InvalidResponseError(Exception):
    """A response is not valid HTTP, or exceeds a limit."""


class ResponseHead(msgspec.Struct, frozen=True):
    """Head of a response; the names of `headers` are in lower case. `minor` is that of the version: HTTP/1.0 or 1.1."""

    minor: int
    status: int
    headers: dict[str, str]


class BodyReceiver(Protocol):
    """Receiver of a body. `done` is True once it needs nothing more; what is fed afterwards is ignored."""

    done: bool

    def feed(self, data: bytes) -> None:
        """Receive a part of the body, which is not empty."""

    def end(self) -> None:
        """Receive the end of a complete body."""


class ResponseParser:
    """Parser of one response, however its bytes are split.

    `on_head` is called with the head, and returns the receiver of the body. Interim responses (1xx) and trailers are
    skipped. `started` is True once a byte was received, and `complete` once the whole response was. `keep_alive`: the
    connection may be used for another request after this one.
    """

    __slots__ = (
        "_after_chunk",
        "_buffer",
        "_extensions",
        "_left",
        "_on_head",
        "_read",
        "_searched",
        "body",
        "complete",
        "head",
        "keep_alive",
        "started",
    )

    def __init__(self, on_head: Callable[[ResponseHead], BodyReceiver]) -> None:
        self.head: ResponseHead | None = None
        self.body: BodyReceiver | None = None
        self.started = False
        self.complete = False
        self.keep_alive = False
        self._on_head = on_head
        # A function and not a bound method, which would be a reference cycle.
        self._read: Callable[[ResponseParser, bytes], None] = ResponseParser._read_head
        self._buffer = bytearray()
        self._searched = 0
        self._left = 0
        self._after_chunk = False
        self._extensions = 0

    def feed(self, data: bytes) -> bool:
        """Parse the next bytes, and return True if nothing more is needed: the response is complete or its receiver is
        done. Raises InvalidResponseError, and the errors of the receiver.
        """
        self._read(self, data)
        body = self.body
        return self.complete or (body is not None and body.done)

    def feed_eof(self) -> bool:
        """Parse the end of the connection; return False if it truncates the response."""
        if self._read is ResponseParser._read_until_close:
            self.complete = True
        return self.complete

    # The head.

    def _read_head(self, data: bytes) -> None:
        self.started = self.started or bool(data)
        if (found := self._read_block(data)) is None:
            if not self._buffer.startswith(b"HTTP/"[: len(self._buffer)]):
                raise InvalidResponseError("not HTTP")
            return
        head, rest = found
        self.head = parse_head(head)
        if 100 <= self.head.status < 200 and self.head.status != 101:
            # The limit applies to all of them together.
            self._left += len(head)
            self.head = None
        else:
            self._left = 0
            self._begin_body(self.head)
        if rest:
            self._read(self, rest)

    def _read_block(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the lines up to an empty one, and the bytes after that; None if they are incomplete."""
        buffer = self._buffer
        buffer += data
        found = _END_OF_HEAD.search(buffer, max(0, self._searched - 3))
        if self._left + (len(buffer) if found is None else found.start()) > MAX_HEAD:
            raise InvalidResponseError("a head that is too large")
        if found is None:
            self._searched = len(buffer)
            return None
        block, rest = bytes(buffer[: found.start()]), bytes(buffer[found.end() :])
        buffer.clear()
        self._searched = 0
        return block, rest

    def _begin_body(self, head: ResponseHead) -> None:
        headers = head.headers
        coding = headers.get("transfer-encoding", "identity").lower()
        length = None if coding != "identity" else _content_length(headers)
        tokens = [token.strip() for token in headers.get("connection", "").lower().split(",")]
        # A body that is framed twice is how responses are smuggled.
        ambiguous = coding != "identity" and "content-length" in headers
        self.keep_alive = head.minor == 1 and "close" not in tokens and not ambiguous
        if head.status == 101 or coding not in ("identity", "chunked"):
            raise InvalidResponseError("an unsupported upgrade or transfer coding")
        self.body = self._on_head(head)
        if head.status in _NO_BODY or length == 0:
            self._finish()
        elif coding == "chunked":
            self._read = ResponseParser._read_chunks
        elif length is not None:
            self._left = length
            self._read = ResponseParser._read_sized
        else:
            self.keep_alive = False
            self._read = ResponseParser._read_until_close

    # The body.

    def _read_until_close(self, data: bytes) -> None:
        assert self.body is not None
        if data:
            self.body.feed(data)

    def _read_sized(self, data: bytes) -> None:
        assert self.body is not None
        if not data:
            return
        part, rest = data[: self._left], data[self._left :]
        self._left -= len(part)
        self.body.feed(part)
        if not self._left:
            self._finish()
            if rest:
                self._read(self, rest)

    def _read_chunks(self, data: bytes) -> None:
        body = self.body
        assert body is not None
        if not (self._left or self._buffer or self._after_chunk):
            # Nearly always: a whole chunk, with a short line before it.
            line, _, rest = data.partition(b"\r\n")
            size = len(rest) - 2
            if size > 0 and rest[-2:] == b"\r\n" and len(line) <= _SHORT_LINE and parse_size(line) == size:
                body.feed(rest[:-2])
                return
        if self._buffer:
            data = bytes(self._buffer) + data
            self._buffer.clear()
        at, end = 0, len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                self._after_chunk = not self._left
                body.feed(part)
                continue
            newline = data.find(b"\n", at)
            if newline < 0 or newline - at > _MAX_SIZE_LINE:
                self._hold(data[at:])
                return
            line, at = data[at:newline], newline + 1
            if self._after_chunk:
                self._end_chunk(line)
            elif size := parse_size(line):
                if b";" in line:
                    self._count_extension(line)
                self._left = size
            else:
                self._read = ResponseParser._read_trailer
                # The empty line after the last chunk and an empty trailer would look like the end of a head.
                self._buffer += b"\n"
                self._read_trailer(data[at:])
                return

    def _hold(self, line: bytes) -> None:
        """Keep the beginning of a line."""
        if len(line) > _MAX_SIZE_LINE or (self._after_chunk and line != b"\r"):
            raise InvalidResponseError("a chunk without end")
        self._buffer += line

    def _end_chunk(self, line: bytes) -> None:
        if line not in (b"\r", b""):
            raise InvalidResponseError("a chunk that is longer than its size")
        self._after_chunk = False

    def _count_extension(self, line: bytes) -> None:
        self._extensions += len(line)
        if self._extensions > _MAX_EXTENSIONS:
            raise InvalidResponseError("too many chunk extensions")

    def _read_trailer(self, data: bytes) -> None:
        if not data:
            return
        if (found := self._read_block(data)) is None:
            return
        trailer, rest = found
        if trailer.count(b"\n") > MAX_FIELDS:
            raise InvalidResponseError("too many trailer fields")
        self._finish()
        if rest:
            self._read(self, rest)

    def _finish(self) -> None:
        self.complete = True
        self._read = ResponseParser._read_surplus

    def _read_surplus(self, data: bytes) -> None:
        if data:
            self.keep_alive = False


def parse_head(head: bytes) -> ResponseHead:
    """Parse the lines of a head. Raises InvalidResponseError."""
    first, *lines = _LINE_END.split(_FOLD.sub(b" ", head))
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise InvalidResponseError("an invalid status line")
    if len(lines) > MAX_FIELDS:
        raise InvalidResponseError("too many header fields")
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise InvalidResponseError("an invalid header field")
        name, value = field[1].decode().lower(), field[2].decode("latin-1").rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return ResponseHead(int(status[1]), int(status[2]), headers)


@lru_cache(maxsize=1024)
def parse_size(line: bytes) -> int:
    """Return the size in the line before a chunk. Raises InvalidResponseError."""
    match = _SIZE.fullmatch(line.removesuffix(b"\r"))
    if match is None:
        raise InvalidResponseError("an invalid chunk size")
    return int(match[1], 16)


def _content_length(headers: dict[str, str]) -> int | None:
    if (given := headers.get("content-length")) is None:
        return None
    lengths = {length.strip() for length in given.split(",")}
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise InvalidResponseError("an invalid content-length")
    return int(length)
