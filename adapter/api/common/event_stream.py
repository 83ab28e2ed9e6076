"""Writes the events of a generation as server-sent events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from adapter.api.common.access_log import Record
from adapter.api.common.extra import chunk_with_extra
from adapter.decode.events import Event, Used
from adapter.errors import log_error
from adapter.generation.base import SinkFactory
from adapter.server.asgi import Message, Receive, Scope, Send
from adapter.server.keep_alive import KeepAlive
from adapter.server.response_writer import ResponseWriter, writer_of
from adapter.server.responses import encode_headers
from subnet.aio import Sink

_NO_EXTRA: dict[str, Any] = {}

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ChunkEncoder(ABC):
    """Base class of encoders that turn the events of one answer into chunks, and pass the bytes to `write`."""

    __slots__ = ("_extra", "_write")

    def __init__(self, write: Sink[bytes]) -> None:
        self._write = write
        self._extra = _NO_EXTRA

    def emit(self, event: Event) -> None:
        if data := self.encode(event):
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


class StreamedAnswer(NamedTuple):
    """Answer to stream: `run` runs its generation, and `make_encoder` makes the encoder of its events.

    `run` calls its argument for each answer it starts, and gets the receiver of that answer's events, which encodes
    them with a new encoder. `headers` are for the response.
    """

    run: Callable[[SinkFactory], Awaitable[None]]
    make_encoder: Callable[[Sink[bytes]], ChunkEncoder]
    headers: Mapping[str, str] = {}


class EventStream:
    """ASGI application that prepares an answer and streams it as server-sent events, which the dialect ends.

    An error before anything was sent is raised, and can still become an error response. After that it is the last event
    of the stream.

    Without output for `keep_alive` seconds the dialect's keep-alive is sent, at first with the status and the headers
    known by then: at least `headers`. Those that this leaves out, such as those that name nodes, are sent as a comment
    at the end.
    """

    def __init__(
        self,
        record: Record,
        prepare: Callable[[], Awaitable[StreamedAnswer]],
        keep_alive: float,
        headers: Mapping[str, str],
    ) -> None:
        self._record = record
        self._headers = dict(headers)
        self._prepare = prepare
        self._keep_alive = keep_alive
        self._late_headers: Mapping[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = writer_of(scope)
        await send(_response_start(self._headers))
        with KeepAlive(writer, self._record.dialect.keep_alive, self._keep_alive, self._record.leave_out_nodes):
            await event_stream(
                partial(self._run, writer, send), writer.write, lambda: writer.started, self._comment, self._record
            )
        await send({"type": "http.response.body"})

    async def _run(self, writer: ResponseWriter, send: Send) -> None:
        prepare = self._prepare
        # It refers to the request, which would stay in memory for the whole stream.
        del self._prepare
        answer = await prepare()
        del prepare
        if writer.started:
            self._late_headers = dict(answer.headers.items() - self._headers.items())
        else:
            await send(_response_start(answer.headers))
        await answer.run(lambda: answer.make_encoder(writer.write).emit)

    def _comment(self) -> bytes:
        """Return the comment with the headers that the head lacks; empty if it has all of them."""
        headers = self._record.late_bound_header()
        if self._record.nodes_left_out:
            headers = {**self._late_headers, **headers, **self._record.node_headers()}
        return "".join(f": {name}: {value}\n" for name, value in headers.items()).encode() + b"\n" if headers else b""


async def event_stream(
    run: Callable[[], Awaitable[None]],
    write: Sink[bytes],
    has_started: Callable[[], bool],
    comment: Callable[[], bytes],
    record: Record,
) -> None:
    """Run a generation that writes its events, then write `comment` and the end of the stream: the dialect's, or an
    error, which is recorded. An error is raised instead if nothing has been sent, says `has_started`.
    """
    try:
        await run()
    except Exception as error:
        if not has_started():
            raise
        log_error(error)
        _, body = record.report(error)
        write(comment() + record.dialect.error_event(body))
        return
    write(comment() + record.dialect.end)


def _response_start(headers: Mapping[str, str]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": encode_headers({**_HEADERS, **headers})}
