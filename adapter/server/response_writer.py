"""Write responses to client connections, with one system call per client and event loop iteration.

The path of a byte, from the endpoint that produces it to the client:

    endpoint: a stream               endpoint: a whole body
        | write(data)                    | send(message), the ASGI callable
        v                                v
    ResponseWriter, one per request
        |   The first part leaves at once, in one write with the response head.
        |   Later parts are collected until the end of the loop iteration:
        |       write() -> FlushScheduler.schedule(flush)    one per event loop
        |       flush() <- FlushScheduler, after all callbacks that are ready
        |   All parts of an iteration then become one chunk (HTTP/1.1) or plain bytes (HTTP/1.0,
        |   content-length). The last chunk is part of the last write.
        v
    SocketWriter, one per connection (socket_writer.py)
        |-- os.write(fd) -------------> socket buffer of the kernel --> client
        |                                    ^
        '-- transport.write(rest) -----------'
                for what the socket does not accept at once, and for TLS

A slow client: as soon as the transport buffers a byte, it calls HttpProtocol.pause_writing, which sets
SocketWriter.paused. From then on parts stay in the ResponseWriter. HttpProtocol.resume_writing clears it and flushes
every writer of the connection. A client that reads too little for HttpProtocol.send_timeout seconds is disconnected.

A client that stops sending, or leaves: HttpProtocol.eof_received keeps the connection, and finds out which by
ResponseWriter.send_probe (see half_close.py).

A client that left: HttpProtocol.connection_lost calls ResponseWriter.disconnect, which calls the function set with
ResponseWriter.on_disconnect. That cancels the request's task (see disconnect.py).
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from adapter.server.asgi import Message, Scope
from adapter.server.socket_writer import SocketWriter


class FlushScheduler:
    """Calls functions once at the end of an iteration of `loop`, in the order in which they were scheduled."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: list[Callable[[], None]] = []

    def schedule(self, callback: Callable[[], None]) -> None:
        """Call `callback` after all callbacks that are ready now. An exception in it goes to the loop's exception
        handler and does not affect the others.
        """
        if not self._callbacks:
            self._loop.call_soon(self._run)
        self._callbacks.append(callback)

    def _run(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                self._loop.call_exception_handler({"message": "error in a scheduled flush", "exception": error})


@lru_cache(maxsize=4)
def flush_scheduler(loop: AbstractEventLoop) -> FlushScheduler:
    """Return the scheduler that all connections of `loop` share."""
    return FlushScheduler(loop)


class _Silence(bytes):
    """Type of SILENCE, which must be another object than b"" though it equals it."""


_SILENCE = _Silence()
# All responses start with it, so that it may be sent before there is one.
_START_OF_HEAD = b"HTTP/1.1 "
# Lines before chunks of these sizes, which nearly all tokens have.
_SIZE_LINES = tuple(b"%x\r\n" % size for size in range(2048))

Header = tuple[bytes, bytes]

CLOSE: Header = (b"connection", b"close")
"""Header of a response after which the connection is closed."""


def encode_head(status: int, headers: Iterable[Header]) -> bytes:
    """Encode a status line and headers. Header names must be in lower case, as ASGI requires. Raises ValueError for
    headers that contain line breaks.
    """
    lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in headers]]
    data = b"".join(lines)
    if data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        raise ValueError("a header must not contain line breaks")
    return data + b"\r\n"


ExtraHeaders = Callable[[int], Iterable[Header]]
"""Returns the headers to add to a response with the given status."""

_KEY = "adapter.server.response_writer"


class ResponseWriter:
    """Writes the response to one request, without a task or an ASGI message per part, and reports when the client
    disconnects.

    The response head is sent with the first part of the body. Until then a response start may be replaced by another
    one, so that an error before the first part can still become an ordinary error response.

    The first part is written at once. Later parts are written at the end of the event loop iteration, as one: an
    iteration brings tokens for many clients, and it is faster to process them all before making system calls.

    Every token passes through this class. With hundreds of streams none of its memory is in the processor's cache, so
    the cost of a token is the number of memory locations it touches: hence the slots, and a single pending part that
    is stored without a list.
    """

    __slots__ = (
        "_chunked",
        "_cycle",
        "_extra_headers",
        "_head",
        "_head_sent",
        "_more_parts",
        "_no_body",
        "_on_disconnect",
        "_part",
        "_scheduler",
        "_socket_writer",
        "_start",
        "_started",
        "_watched",
        "disconnected",
        "keep_alive",
    )

    def __init__(
        self,
        cycle: RequestResponseCycle,
        socket_writer: SocketWriter,
        scheduler: FlushScheduler,
        watched: set[ResponseWriter],
    ) -> None:
        """`watched` is the connection's set of writers that want to know of a disconnect. `keep_alive` is a part that
        may be added to a streamed response at any time; empty if there is none.
        """
        self.disconnected = False
        self.keep_alive = b""
        self._cycle: RequestResponseCycle | None = cycle
        self._socket_writer = socket_writer
        self._scheduler = scheduler
        self._watched = watched
        self._on_disconnect: Callable[[], object] | None = None
        self._extra_headers: ExtraHeaders = _no_headers
        self._start: tuple[int, Sequence[Header]] | None = None
        self._head = b""
        self._head_sent = b""
        self._no_body = False
        self._chunked = False
        self._started = False
        self._part = b""
        self._more_parts: list[bytes] | None = None

    @property
    def request_received(self) -> bool:
        """True if the whole body of the request has been received."""
        return self._cycle is None or not self._cycle.more_body

    @property
    def started(self) -> bool:
        """True once the head of the response was sent."""
        return self._started

    def was_silent(self) -> bool:
        """Return whether nothing was written since the last call; False while the client does not read."""
        silent = self._part is _SILENCE
        if not self._part:
            # Whatever is written replaces it, which costs nothing, unlike keeping the time of the last write.
            self._part = _SILENCE
        return silent and not self._socket_writer.paused

    def send_probe(self) -> bool:
        """Send something that says nothing yet: a keep-alive if the response has started, its first bytes otherwise.
        Returns False if nothing can be sent, as in the middle of a response that is not a stream.
        """
        if self._started:
            if self.keep_alive:
                self.write(self.keep_alive)
            return bool(self.keep_alive)
        if self._cycle is None or self._cycle.waiting_for_100_continue:
            return False
        self._head_sent = _START_OF_HEAD
        self._socket_writer.write(_START_OF_HEAD)
        return True

    def on_disconnect(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` when the client disconnects; None removes the callback."""
        self._on_disconnect = callback
        if callback is not None:
            self._watched.add(self)
            return
        self._watched.discard(self)
        if self.disconnected:
            self._release()

    def add_headers(self, extra_headers: ExtraHeaders) -> None:
        """Add the headers that `extra_headers` returns when the response starts."""
        self._extra_headers = extra_headers

    async def send(self, message: Message) -> None:
        """Send an ASGI message. Unlike uvicorn's `send`, this writes head and body together. Raises RuntimeError after
        the end of the response.
        """
        cycle = self._cycle
        if cycle is None and not self.disconnected:
            raise RuntimeError("the response is already complete")
        if cycle is not None and cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle is None or cycle.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start = (message["status"], message["headers"])
            return
        self._prepare_head(cycle)
        if body := message.get("body"):
            self._append(body)
        last = not message.get("more_body", False)
        self._write(last=last)
        if last:
            self._complete(cycle)

    def write(self, data: bytes) -> None:
        """Write a part of the body, after a response start was sent: the first part now, others at the end of the loop
        iteration.
        """
        if self._part:
            self._append(data)
            return
        self._part = data
        if self._started:
            self._scheduler.schedule(self.flush)
        elif self._cycle is not None:
            self._prepare_head(self._cycle)
            self.flush()

    def flush(self) -> None:
        """Write the pending parts, unless the connection is paused."""
        if self._part and self._started and not self._socket_writer.paused:
            self._write()

    def disconnect(self) -> None:
        """Record that the client disconnected, and call the `on_disconnect` callback."""
        self.disconnected = True
        if self._cycle is not None:
            # uvicorn sets this only for the last of several pipelined requests.
            self._cycle.disconnected = True
        if self._on_disconnect is not None:
            self._on_disconnect()

    def _prepare_head(self, cycle: RequestResponseCycle) -> None:
        if self._started or self._start is None:
            return
        status, headers = self._start
        more = list(self._extra_headers(status))
        if cycle.waiting_for_100_continue and cycle.more_body:
            # The client may send its body now, or leave it out: only a closed connection makes that clear.
            cycle.keep_alive = False
        cycle.waiting_for_100_continue = False
        if CLOSE in more:
            cycle.keep_alive = False
            if CLOSE in headers:
                more.remove(CLOSE)
        elif CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            more.append(CLOSE)
        self._no_body = status in (204, 304) or cycle.scope["method"] == "HEAD"
        has_length = self._no_body or any(name == b"content-length" for name, _ in headers)
        # HTTP/1.0 clients do not know chunks: they read until the connection is closed.
        self._chunked = not has_length and cycle.scope["http_version"] >= "1.1"
        if self._chunked:
            more.append((b"transfer-encoding", b"chunked"))
        self._head = encode_head(status, [*cycle.default_headers, *headers, *more]).removeprefix(self._head_sent)
        self._started = cycle.response_started = True

    def _append(self, data: bytes) -> None:
        if not self._part:
            self._part = data
        elif self._more_parts is None:
            self._more_parts = [data]
        else:
            self._more_parts.append(data)

    def _write(self, *, last: bool = False) -> None:
        data, self._part = self._part, b""
        if self._more_parts is not None:
            data, self._more_parts = b"".join([data, *self._more_parts]), None
        if self._chunked:
            if size := len(data):
                line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x\r\n" % size
                data = b"".join((line, data, b"\r\n"))
            if last:
                data += b"0\r\n\r\n"
        elif self._no_body:
            data = b""
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            self._socket_writer.write(data)

    def _complete(self, cycle: RequestResponseCycle) -> None:
        self._release()
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive and not cycle.more_body:
            self._socket_writer.close()
        # The protocol closes the connection of a client that may still be sending.
        cycle.on_response()

    def _release(self) -> None:
        """Break the reference cycles, so that nothing of the request waits for the garbage collector."""
        self._cycle = None
        self._extra_headers = _no_headers


def _no_headers(status: int) -> Iterable[Header]:
    return ()


def attach_writer(scope: Scope, writer: ResponseWriter) -> None:
    """Make `writer` available to the application as an ASGI extension."""
    scope["extensions"] = {_KEY: writer}


def writer_of(scope: Scope) -> ResponseWriter:
    """Return the writer that the server attached to `scope`."""
    writer: ResponseWriter = scope["extensions"][_KEY]
    return writer
