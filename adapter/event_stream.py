"""Events -> a stream of server-sent events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from adapter.chunks import DONE
from adapter.errors import answer_to, report
from adapter.events import Event
from adapter.http.push import Write

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class Encoder(Protocol):
    """Empty for an event that nothing is to be written for."""

    def encode(self, event: Event) -> bytes: ...


Run = Callable[[Callable[[Event], None]], Awaitable[None]]


async def event_stream(run: Run, chunks: Callable[[], Encoder], write: Write) -> None:
    """Write what `run` emits, by an encoder that `chunks` makes for the first event. An error of `run` is raised as
    long as nothing was written; a later one is the last event of a stream that then lacks its [DONE], so that a cut
    answer never looks finished.
    """
    writer = _Writer(chunks, write)
    try:
        await run(writer.emit)
        write(DONE)
    except Exception as error:
        if not writer.begun:
            raise
        report(error)
        write(b"data: " + answer_to(error).body + b"\n\n")


class _Writer:
    """`begun`: something was written."""

    __slots__ = ("_chunks", "_make", "_write", "begun")

    def __init__(self, make: Callable[[], Encoder], write: Write) -> None:
        self.begun = False
        self._make = make
        self._chunks: Encoder | None = None
        self._write = write

    def emit(self, event: Event) -> None:
        chunks = self._chunks
        if chunks is None:
            chunks = self._chunks = self._make()
        if data := chunks.encode(event):
            self.begun = True
            self._write(data)
