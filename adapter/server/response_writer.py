"""The client of one request, as our server knows it: an ASGI extension, and what answers are sent through."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop, Transport
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from adapter.server.asgi import Message, Scope


class Turn:
    """Puts off what is better done once for all that happens in a turn of `loop`."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: list[Callable[[], None]] = []

    def at_end(self, job: Callable[[], None]) -> None:
        """Call `job` when all that is ready now has been done. What it raises is logged, and keeps no other from it."""
        if not self._jobs:
            self._loop.call_soon(self._run)
        self._jobs.append(job)

    def _run(self) -> None:
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            try:
                job()
            except Exception as error:
                self._loop.call_exception_handler({"message": "error in an end-of-turn callback", "exception": error})


@lru_cache(maxsize=4)
def turn_of(loop: AbstractEventLoop) -> Turn:
    """The same for all connections of a loop."""
    return Turn(loop)


class Outlet:
    """Writes straight to the socket of `transport`. What the socket does not take at once goes through the transport,
    which sends it later. Through the transport every write would cost twice as much: uvloop checks and queues a lot
    before it makes the same system call.

    `full`: the transport still has bytes to send, and everything must queue behind them. The protocol sets it in
    `pause_writing`; as the limit of the transport's buffer is 0, a single unsent byte is enough for that.
    """

    __slots__ = ("_fd", "_transport", "full")

    def __init__(self, transport: Transport) -> None:
        transport.set_write_buffer_limits(0)
        self.full = False
        self._transport = transport
        own = transport.get_extra_info("socket")
        # With TLS, or without a socket, only the transport can write.
        self._fd = -1 if own is None or transport.get_extra_info("sslcontext") is not None else own.fileno()

    def write(self, data: bytes) -> None:
        """All of it, sooner or later; nothing once it is closed."""
        if self.full or self._fd < 0:
            if not self._transport.is_closing():
                self._transport.write(data)
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Its protocol hears of the loss as of any other.
            self._transport.abort()
            return
        if sent == len(data):
            return
        if self._transport.is_closing():
            # It takes nothing any more: what would come after a hole must not go out, either.
            self.lost()
        else:
            self._transport.write(memoryview(data)[sent:])

    def close(self) -> None:
        """Once all that was written is sent."""
        self.lost()
        self._transport.close()

    def lost(self) -> None:
        """The transport closes, or is closed: there is no socket any more."""
        self._fd = -1


Header = tuple[bytes, bytes]


def head(status: int, headers: Iterable[Header]) -> bytes:
    """Names in lower case, as ASGI wants them. Raises ValueError for a header that would be more than one line."""
    lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in headers]]
    data = b"".join(lines)
    if data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        raise ValueError("a header must not contain line breaks")
    return data + b"\r\n"


Tell = Callable[[int], Iterable[Header]]

_KEY = "adapter.server.response_writer"


class Caller:
    """Sends an answer, takes parts of its body with neither a task nor a message for each, and tells when the client
    leaves.

    An answer begins with the first part of its body: a start that nothing followed may be replaced by another, so that
    an error before it can still be a plain answer. The head goes out with the first part, and the end with the last, so
    that a short answer is one write. The first part does not wait; all other parts of one turn of the event loop are
    written at its end, as one: a turn brings what nodes sent to many clients, and the processor is quicker at one thing
    after the other than at all of it by turns. And when the gateway is behind, a turn brings several parts for one
    client. What a slow client has not taken waits here, too.

    Every token passes through one of these. With hundreds of streams it finds nothing of its own in the processor's
    cache, so what it costs is how many places in memory it looks at: one part is kept without a list around it.
    """

    __slots__ = (
        "_bare",
        "_chunked",
        "_cycle",
        "_head",
        "_more",
        "_on_gone",
        "_outlet",
        "_part",
        "_start",
        "_started",
        "_tell",
        "_turn",
        "_watched",
        "gone",
    )

    def __init__(self, cycle: RequestResponseCycle, outlet: Outlet, turn: Turn, watched: set[Caller]) -> None:
        """`watched`: those of a connection whose requests are under way."""
        self.gone = False
        self._cycle: RequestResponseCycle | None = cycle
        self._outlet = outlet
        self._turn = turn
        self._watched = watched
        self._on_gone: Callable[[], object] | None = None
        self._tell: Tell = _nothing
        self._start: tuple[int, Sequence[Header]] | None = None
        self._head = b""
        self._bare = False
        self._chunked = False
        self._started = False
        self._part = b""
        self._more: list[bytes] | None = None

    @property
    def received(self) -> bool:
        """Whether all of the request's body is here."""
        return self._cycle is None or not self._cycle.more_body

    def watch(self, on_gone: Callable[[], object] | None) -> None:
        """Call `on_gone` when the client leaves; None: no longer."""
        self._on_gone = on_gone
        if on_gone is not None:
            self._watched.add(self)
            return
        self._watched.discard(self)
        if self.gone:
            self._let_go()

    def on_answer(self, tell: Tell) -> None:
        """Have `tell` asked, with the status, for the headers that every answer has, when one begins."""
        self._tell = tell

    async def send(self, message: Message) -> None:
        """ASGI's own; what uvicorn sends with writes head and body one after the other, and takes longer."""
        cycle = self._cycle
        if cycle is None and not self.gone:
            raise RuntimeError("the response is already complete")
        if cycle is not None and cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle is None or cycle.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start = (message["status"], message["headers"])
            return
        self._begin(cycle)
        if body := message.get("body"):
            self._keep(body)
        last = not message.get("more_body", False)
        self._write(last=last)
        if last:
            self._complete(cycle)

    def write(self, data: bytes) -> None:
        if self._part:
            self._keep(data)
            return
        self._part = data
        if self._started:
            self._turn.at_end(self.flush)
        elif self._cycle is not None:
            self._begin(self._cycle)
            self.flush()

    def flush(self) -> None:
        """Write at once what may be written."""
        if self._part and self._started and not self._outlet.full:
            self._write()

    def hang_up(self) -> None:
        """The client left."""
        self.gone = True
        if self._cycle is not None:
            # Of pipelined requests uvicorn tells the last one only.
            self._cycle.disconnected = True
        if self._on_gone is not None:
            self._on_gone()

    def _begin(self, cycle: RequestResponseCycle) -> None:
        """Unless it has begun."""
        if self._started or self._start is None:
            return
        status, headers = self._start
        more = list(self._tell(status))
        cycle.waiting_for_100_continue = False
        if (b"connection", b"close") in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            more.append((b"connection", b"close"))
        # An answer that has no body, whatever is written.
        self._bare = status in (204, 304) or cycle.scope["method"] == "HEAD"
        measured = self._bare or any(name == b"content-length" for name, _ in headers)
        # Who does not know of chunks reads until the connection ends.
        self._chunked = not measured and cycle.scope["http_version"] >= "1.1"
        if self._chunked:
            more.append((b"transfer-encoding", b"chunked"))
        self._head = head(status, [*cycle.default_headers, *headers, *more])
        self._started = cycle.response_started = True

    def _keep(self, data: bytes) -> None:
        """After what is kept already."""
        if not self._part:
            self._part = data
        elif self._more is None:
            self._more = [data]
        else:
            self._more.append(data)

    def _write(self, *, last: bool = False) -> None:
        data, self._part = self._part, b""
        if self._more is not None:
            data, self._more = b"".join([data, *self._more]), None
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if last:
                data += b"0\r\n\r\n"
        elif self._bare:
            data = b""
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            self._outlet.write(data)

    def _complete(self, cycle: RequestResponseCycle) -> None:
        self._let_go()
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._outlet.close()
        cycle.on_response()

    def _let_go(self) -> None:
        """Of what knows this one, too: nothing is to wait for the garbage collector."""
        self._cycle = None
        self._tell = _nothing


def _nothing(status: int) -> Iterable[Header]:
    return ()


def offer(scope: Scope, caller: Caller) -> None:
    scope["extensions"] = {_KEY: caller}


def caller_of(scope: Scope) -> Caller:
    """The one that our server offered."""
    caller: Caller = scope["extensions"][_KEY]
    return caller
