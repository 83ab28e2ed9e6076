"""Writes the events of a generation as server-sent events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from adapter.api.common.extra import chunk_with_extra
from adapter.decode.events import Event, Used
from adapter.errors import log_error, to_http_error
from adapter.generation.base import SinkFactory
from subnet.aio import Sink

_NO_EXTRA: dict[str, Any] = {}

DONE = b"data: [DONE]\n\n"

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ChunkEncoder(ABC):
    """Base class of encoders that turn the events of one answer into chunks, and pass the bytes to `write`.

    `has_written` is True once anything was written.
    """

    __slots__ = ("_extra", "_write", "has_written")

    def __init__(self, write: Sink[bytes]) -> None:
        self.has_written = False
        self._write = write
        self._extra = _NO_EXTRA

    def emit(self, event: Event) -> None:
        if data := self.encode(event):
            self.has_written = True
            self._write(data)

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """Return the bytes to write for `event`; empty if there is nothing to write."""

    def _add_to_next_chunk(self, extra: dict[str, Any]) -> None:
        """Add members to what the next event writes. The writing of all other chunks costs nothing for it."""
        if self._extra:
            self._extra = self._extra | extra
            return
        write, self._extra = self._write, extra

        def write_once(data: bytes) -> None:
            members, self._extra, self._write = self._extra, _NO_EXTRA, write
            write(chunk_with_extra(data, members))

        self._write = write_once


def nodes_comment(event: Used) -> bytes:
    """Return the comment that names the nodes of an answer, the tokens that were generated again to resume it, whether
    they differed, and the model that continued the words of another one.
    """
    replayed = f"; replayed {event.replayed} tokens" if event.replayed else ""
    diverged = "; diverged" if event.diverged else ""
    continued = f"; continued by {''.join(filter(str.isprintable, event.continued_by))}" if event.continued_by else ""
    return f": nodes {', '.join(event.nodes)}{replayed}{diverged}{continued}\n\n".encode()


async def event_stream(
    run: Callable[[SinkFactory], Awaitable[None]],
    make_encoder: Callable[[Sink[bytes]], ChunkEncoder],
    write: Sink[bytes],
) -> None:
    """Run a generation and write its events as server-sent events, with [DONE] at the end.

    `run` calls its argument for each answer it starts, and gets the receiver of that answer's events, which encodes
    them with a new encoder. An error of `run` is raised if nothing was written yet. Otherwise it is written as the last
    event of the stream, without [DONE], so that a client does not take the answer for complete.
    """
    encoder: ChunkEncoder | None = None

    def start() -> Sink[Event]:
        nonlocal encoder
        encoder = make_encoder(write)
        return encoder.emit

    try:
        await run(start)
        write(DONE)
    except Exception as error:
        if encoder is None or not encoder.has_written:
            raise
        log_error(error)
        write(b"data: " + to_http_error(error).body + b"\n\n")
