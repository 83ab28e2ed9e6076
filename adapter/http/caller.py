"""The client of one request, as our server knows it: an ASGI extension, and what answers are sent through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from adapter.http.asgi import Message, Scope
from adapter.http.head import Header, head
from adapter.http.turn import Turn

_KEY = "adapter.http.caller"


class Caller:
    """Sends an answer, takes parts of its body, once it has been started, with neither a task nor a message for each,
    and tells when the client leaves.

    The head goes out with the first part, and the end with the last, so that a short answer is one write. All parts of
    one turn of the event loop are written at its end, as one: a turn brings what nodes sent to many clients, and the
    processor is quicker at one thing after the other than at all of it by turns. And when the gateway is behind, a turn
    brings several parts for one client. What a slow client has not taken waits here, too.
    """

    __slots__ = ("_bare", "_cycle", "_head", "_on_gone", "_parts", "_turn", "_watched", "gone")

    def __init__(self, cycle: RequestResponseCycle, turn: Turn, watched: set[Caller]) -> None:
        """`watched`: those of a connection whose requests are under way."""
        self.gone = False
        self._cycle = cycle
        self._turn = turn
        self._watched = watched
        self._on_gone: Callable[[], object] | None = None
        self._head = b""
        self._bare = False
        self._parts: list[bytes] = []

    @property
    def received(self) -> bool:
        """Whether all of the request's body is here."""
        return not self._cycle.more_body

    def watch(self, on_gone: Callable[[], object] | None) -> None:
        """Call `on_gone` when the client leaves; None: no longer."""
        self._on_gone = on_gone
        if on_gone is None:
            self._watched.discard(self)
        else:
            self._watched.add(self)

    async def send(self, message: Message) -> None:
        """ASGI's own; what uvicorn sends with writes head and body one after the other, and takes longer."""
        cycle = self._cycle
        if cycle.response_complete:
            raise RuntimeError("the answer is complete already")
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        if body := message.get("body"):
            self._parts.append(body)
        last = not message.get("more_body", False)
        self._write(last=last)
        if last:
            self._complete()

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._turn.at_end(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Write at once, unless the client is slow: then when it no longer is."""
        if self._parts and not self._cycle.flow.write_paused:
            self._write()

    def hang_up(self) -> None:
        """The client left."""
        self.gone = True
        # Of pipelined requests uvicorn tells the last one only.
        self._cycle.disconnected = True
        if self._on_gone is not None:
            self._on_gone()

    def _start(self, status: int, headers: Sequence[Header]) -> None:
        cycle, more = self._cycle, list[Header]()
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        if (b"connection", b"close") in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            more.append((b"connection", b"close"))
        self._bare = status in (204, 304) or cycle.scope["method"] == "HEAD"
        measured = self._bare or any(name == b"content-length" for name, _ in headers)
        # Who does not know of chunks reads until the connection ends.
        cycle.chunked_encoding = not measured and cycle.scope["http_version"] >= "1.1"
        if cycle.chunked_encoding:
            more.append((b"transfer-encoding", b"chunked"))
        self._head = head(status, [*cycle.default_headers, *headers, *more])

    def _write(self, *, last: bool = False) -> None:
        cycle, parts = self._cycle, self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if cycle.chunked_encoding:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if last:
                data += b"0\r\n\r\n"
        elif self._bare:
            data = b""
        if self._head:
            data, self._head = self._head + data, b""
        if data and not cycle.transport.is_closing():
            cycle.transport.write(data)

    def _complete(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def offer(scope: Scope, caller: Caller) -> None:
    scope["extensions"] = {_KEY: caller}


def caller_of(scope: Scope) -> Caller:
    """The one that our server offered."""
    caller: Caller = scope["extensions"][_KEY]
    return caller
