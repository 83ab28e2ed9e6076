"""The client of one request, as our server knows it: an ASGI extension."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from adapter.http.asgi import Scope
from adapter.http.turn import Turn

_KEY = "adapter.http.caller"


class Caller:
    """Takes parts of a body, once an answer has been started, with neither a task nor a message for each, and tells
    when the client leaves.

    All parts of one turn of the event loop are written at its end, as one: a turn brings what nodes sent to many
    clients, and the processor is quicker at one thing after the other than at all of it by turns. And when the
    gateway is behind, a turn brings several parts for one client. What a slow client has not taken waits here, too.
    """

    __slots__ = ("_cycle", "_on_gone", "_parts", "_turn", "_watched", "gone")

    def __init__(self, cycle: RequestResponseCycle, turn: Turn, watched: set[Caller]) -> None:
        """`watched`: those of a connection whose requests are under way."""
        self.gone = False
        self._cycle = cycle
        self._turn = turn
        self._watched = watched
        self._on_gone: Callable[[], object] | None = None
        self._parts: list[bytes] = []

    def watch(self, on_gone: Callable[[], object] | None) -> None:
        """Call `on_gone` when the client leaves; None: no longer."""
        self._on_gone = on_gone
        if on_gone is None:
            self._watched.discard(self)
        else:
            self._watched.add(self)

    def begin(self) -> None:
        """To be called before an answer is started whose parts are pushed."""
        if self._cycle.scope["http_version"] < "1.1":
            # Who does not know of chunks reads until the connection ends.
            self._cycle.chunked_encoding = False

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._turn.at_end(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Write at once, unless the client is slow: then when it no longer is."""
        cycle, parts = self._cycle, self._parts
        if not parts or cycle.flow.write_paused:
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if not cycle.transport.is_closing():
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if cycle.chunked_encoding else data)

    def hang_up(self) -> None:
        """The client left."""
        self.gone = True
        # Of pipelined requests uvicorn tells the last one only.
        self._cycle.disconnected = True
        if self._on_gone is not None:
            self._on_gone()


def offer(scope: Scope, caller: Caller) -> None:
    scope["extensions"] = {_KEY: caller}


def caller_of(scope: Scope) -> Caller:
    """The one that our server offered."""
    caller: Caller = scope["extensions"][_KEY]
    return caller
