"""Events -> a stream of server-sent events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from adapter.decode.events import Event
from adapter.errors import log_error, to_http_error
from adapter.generation.base import SinkFactory
from subnet.aio import Sink

DONE = b"data: [DONE]\n\n"

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ChunkEncoder(ABC):
    """Writes the events of one answer. `begun`: something was written."""

    __slots__ = ("_write", "begun")

    def __init__(self, write: Sink[bytes]) -> None:
        self.begun = False
        self._write = write

    def emit(self, event: Event) -> None:
        if data := self.encode(event):
            self.begun = True
            self._write(data)

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """Empty for an event that nothing is to be written for."""


async def event_stream(
    run: Callable[[SinkFactory], Awaitable[None]], make: Callable[[Sink[bytes]], ChunkEncoder], write: Sink[bytes]
) -> None:
    """Write the answer that `run` makes, by chunks that are made anew for each one that it begins. An error of `run` is
    raised as long as nothing was written; a later one is the last event of a stream that then lacks its [DONE], so that
    a cut answer never looks finished.
    """
    chunks: ChunkEncoder | None = None

    def start() -> Sink[Event]:
        nonlocal chunks
        chunks = make(write)
        return chunks.emit

    try:
        await run(start)
        write(DONE)
    except Exception as error:
        if chunks is None or not chunks.begun:
            raise
        log_error(error)
        write(b"data: " + to_http_error(error).body + b"\n\n")
