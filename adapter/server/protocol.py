"""HTTP protocol of a connection: uvicorn's, with OpenAI-style errors, a send timeout and an idle timeout."""

from __future__ import annotations

import re
from asyncio import AbstractEventLoop, Transport
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from adapter.errors import AdapterError, HeadersTooLarge, InvalidHttp, to_http_error
from adapter.request_id import request_id
from adapter.server.connections import Connections
from adapter.server.half_close import HalfClosed, can_watch
from adapter.server.response_writer import Header, ResponseWriter, attach_writer, flush_scheduler
from adapter.server.responses import encode_headers
from adapter.server.send_timer import SendTimer
from adapter.server.socket_writer import SocketWriter
from subnet.errors import ClientLimited, Overloaded

# Requests that wait for the response to an earlier one of the same connection. Parsing stops when there are as many, at
# the end of a slice of the input.
_MAX_PIPELINE = 8
_SLICE = 1024

# A message of more bytes than this must not consist mostly of the framing of its chunks: parsing a chunk of one byte
# takes as long as parsing one of thousands.
_FREE_FRAMING, _MAX_FRAMING = 128 * 1024, 5

# Liveness checks, see health.py. One that fails because all connections are busy would restart a working gateway.
_LIVENESS_CHECK = re.compile(rb"GET /(?:healthz|health|ping)[ ?]")
_ALIVE = b'{"status":"ok"}'


@runtime_checkable
class HasErrorHeaders(Protocol):
    """Application that adds headers to the errors of requests that do not reach it."""

    def error_headers(self, headers: Iterable[Header]) -> list[Header]:
        """Return the headers for the response to a request with `headers`, which may be incomplete."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1 connection of a client.

    A client that has unread data and reads less than 64 KiB in `send_timeout` seconds is disconnected. A connection
    without a running request is closed after the keep-alive timeout, even if it never sent a complete request head. A
    client that stops sending gets the responses to its complete requests; see half_close.py.

    The parts of uvicorn that this relies on are checked at startup, see uvicorn_check.py.
    """

    send_timeout = 120.0
    linger_timeout = 5.0
    """Seconds for which input is discarded after a response that did not wait for the rest of its request."""
    socket_writer_class: type[SocketWriter] = SocketWriter
    _half_closed: HalfClosed | None = None
    _ignores_input = False
    _closes_when_answered = False
    _unparsed_size = 0
    _unparsed = b""
    _message_size = 0
    _body_size = 0
    _refusal: Overloaded | ClientLimited | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
        *,
        accepted: Connections | None = None,
    ) -> None:
        """`accepted` are all connections of the server; None: just this one."""
        super().__init__(config, server_state, app_state, _loop)
        self._accepted = accepted or Connections()
        self._limits = self._accepted.limits

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._socket_writer = self.socket_writer_class(transport)
        self._send_timer = SendTimer(self.loop, transport, self.send_timeout)
        self._writers: set[ResponseWriter] = set()
        self._start_idle_timeout()
        try:
            self._accepted.open(self, self.client[0] if self.client else "")
        except (Overloaded, ClientLimited) as error:
            self._refuse(error)

    def drop(self) -> None:
        """Close the connection after everything written so far is sent."""
        self._ignores_input = True
        self._socket_writer.close()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            self._send_refusal(self._refusal, data)
            return
        for start in range(0, len(data), _SLICE):
            if len(self.pipeline) >= _MAX_PIPELINE:
                # Reading is paused: nothing more arrives until on_response_complete has parsed this.
                self._unparsed += data[start:]
                return
            self._receive(data[start : start + _SLICE])

    def _receive(self, data: bytes) -> None:
        if self._ignores_input:
            return
        self._unparsed_size += len(data)
        self._message_size += len(data)
        try:
            self._parse(data)
        except HttpParserError as error:
            # The parser wraps what its callbacks raise.
            cause, invalid = error.__context__, InvalidHttp("Invalid HTTP request received.")
            self._reject_input(cause if isinstance(cause, AdapterError) else invalid)
            return
        if self._unparsed_size >= self._limits.max_head:
            maximum = self._limits.max_head
            self._reject_input(HeadersTooLarge(f"The request headers are too large: the maximum is {maximum} bytes."))
        elif self._message_size > max(_FREE_FRAMING, self._limits.max_head) + self._body_size * _MAX_FRAMING:
            self._reject_input(InvalidHttp("Invalid HTTP request received: the chunks of the body are too small."))

    # The parser keeps a head, trailers and chunk extensions in memory until they are complete. Everything else arrives
    # through one of these callbacks as soon as it is read.
    def on_message_begin(self) -> None:
        self._unparsed_size = self._message_size = self._body_size = 0
        # The time for the rest of the head starts now, and more data does not extend it.
        self._start_idle_timeout()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= self._limits.max_fields:
            raise HeadersTooLarge(f"Too many header fields: the maximum is {self._limits.max_fields}.")
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unparsed_size = 0
        self._body_size += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._unparsed_size = 0
        if self.parser.should_upgrade():
            return
        if self.parser.get_http_version() == "1.0":
            # It has no interim responses (RFC 9110, section 10.1.1).
            self.expect_100_continue = False
        super().on_headers_complete()
        self._accepted.mark_busy(self)
        self._unset_keepalive_if_required()
        writer = ResponseWriter(self.cycle, self._socket_writer, flush_scheduler(self.loop), self._writers)
        attach_writer(self.cycle.scope, writer)  # type: ignore[arg-type]
        self.cycle.send = writer.send  # type: ignore[method-assign, assignment]

    def on_message_complete(self) -> None:
        self._unparsed_size = 0
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        if not self.pipeline:
            # A disconnect is only noticed while reading.
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        last = self._closes_when_answered and not self.pipeline
        super().on_response_complete()
        if self._unparsed and not last:
            data, self._unparsed = self._unparsed, b""
            self.data_received(data)
        if self.pipeline:
            self.flow.pause_reading()
        if self.cycle.response_complete:
            self._accepted.mark_idle(self)
        if last:
            self._socket_writer.close()
        elif self.cycle.more_body and self.cycle.response_complete and not self.cycle.keep_alive:
            self._close_after_input()

    def eof_received(self) -> bool:  # type: ignore[override]
        if not can_watch(self.transport) or not (self._closes_when_answered or self._finish_requests()):
            return False
        if self._half_closed is None:
            self._half_closed = HalfClosed(self.transport, self._send_probe)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._socket_writer.paused = True
        self._send_timer.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._socket_writer.paused = False
        self._send_timer.cancel()
        for writer in self._writers:
            writer.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._accepted.closed(self)
        self._unset_keepalive_if_required()
        self._socket_writer.detach()
        self._send_timer.cancel()
        if self._half_closed is not None:
            self._half_closed.stop()
            # It refers to this object: a reference cycle otherwise.
            self._half_closed = None
        for writer in list(self._writers):
            writer.disconnect()

    def _refuse(self, error: Overloaded | ClientLimited) -> None:
        """Refuse the connection: respond with `error` to its first request, if that comes soon, and close it.

        Clients take a response that comes before their request for a mistake of the server.
        """
        self._refusal = error
        self._unset_keepalive_if_required()
        if self._accepted.refuse(self):
            self.timeout_keep_alive_task = self.loop.call_later(self.linger_timeout, self.transport.close)
        else:
            self.transport.abort()

    def _send_refusal(self, error: Overloaded | ClientLimited, data: bytes) -> None:
        if self._ignores_input:
            return
        if _LIVENESS_CHECK.match(data):
            self._write_last(200, {}, _ALIVE)
        else:
            self._write_error(error)
        self._close_after_input()

    def _send_error(self, error: AdapterError) -> None:
        if self.cycle is not None:
            # The request may have reached the application before its body turned out to be invalid.
            self.cycle.disconnected = True
        self._write_error(error)
        self.drop()

    def _write_error(self, error: Exception) -> None:
        answer = to_http_error(error)
        self._write_last(answer.status, answer.headers, answer.body)

    def _write_last(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write a response of the server itself, which is the last one of the connection."""
        own = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-request-id": request_id(None),
            **headers,
            "connection": "close",
        }
        more = self.app.error_headers(self.headers or []) if isinstance(self.app, HasErrorHeaders) else []
        lines = [b"%b: %b\r\n" % header for header in (*encode_headers(own), *more)]
        self._socket_writer.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))

    def _reject_input(self, error: AdapterError) -> None:
        """Handle input that is not valid HTTP: complete the responses to earlier requests, then close the connection.
        Without such requests, respond with `error`.
        """
        if not self._finish_requests():
            self._send_error(error)

    def _finish_requests(self) -> bool:
        """Ignore further input, and close the connection after the responses to complete requests. Returns False if
        there are no such requests.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not self.pipeline):
            return False
        self._ignores_input = self._closes_when_answered = True
        if cycle.more_body:
            # The last pipelined request is the incomplete one.
            self.pipeline.popleft()
        else:
            cycle.keep_alive = False
        return True

    def _close_after_input(self) -> None:
        """Close the connection in a way that the client can read the response though it is still sending: data that
        arrives at a closed socket resets the connection, and a reset discards what was not read.
        """
        self._ignores_input = True
        self._unset_keepalive_if_required()
        if self._socket_writer.close_sending_side():
            self.timeout_keep_alive_task = self.loop.call_later(self.linger_timeout, self.transport.close)
        else:
            self.transport.close()

    def _send_probe(self) -> bool:
        return any(writer.send_probe() for writer in self._writers)

    def _start_idle_timeout(self) -> None:
        """Close the connection after the keep-alive timeout unless a request is running. uvicorn itself has no timeout
        for the first request, nor for the rest of a request head.
        """
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _parse(self, data: bytes) -> None:
        """Parse input, ignoring requests to upgrade to another protocol, which a server may do (RFC 9110, section 7.8).
        Java's client sends one with every first request, to upgrade to HTTP/2.

        The parser stops after the head of such a request. A new parser gets that head again, without the upgrade
        header, and then the rest of the input.
        """
        rest = memoryview(data)
        while True:
            try:
                return self.parser.feed_data(rest)
            except HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            head = self._head_without_upgrade()
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise HttpParserError("CONNECT is not supported")
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version), *lines, b"", b""])
