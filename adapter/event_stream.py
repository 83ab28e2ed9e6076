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


async def event_stream(run: Run, chunks: Encoder, write: Write) -> None:
    """Write what `run` emits. Its error is raised as long as nothing was written; a later one is the last event of a
    stream that then lacks its [DONE], so that a cut answer never looks finished.
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

    __slots__ = ("_chunks", "_write", "begun")

    def __init__(self, chunks: Encoder, write: Write) -> None:
        self.begun = False
        self._chunks = chunks
        self._write = write

    def emit(self, event: Event) -> None:
        if data := self._chunks.encode(event):
            self.begun = True
            self._write(data)
