"""uvicorn's HTTP protocol, with OpenAI's words for what is no HTTP, and an end to patience with who does not read."""

from __future__ import annotations

from asyncio import TimerHandle, Transport

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from adapter.errors import BadRequest, answer_to
from adapter.request_id import request_id
from adapter.server.response_writer import Caller, Outlet, offer, turn_of

# Bytes that a client takes in the time of `patience`, unless it takes all.
_LEAST = 64 * 1024


class HttpProtocol(HttpToolsProtocol):
    """A connection is cut when a send cannot go on and its client takes next to nothing for `patience` seconds. One
    without a request is closed after as long as one is kept alive, also when it never had any, or only a part of a
    head.
    """

    patience = 120.0
    outlets: type[Outlet] = Outlet
    _cutting: TimerHandle | None = None
    _deaf = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = self.outlets(transport)
        self._callers: set[Caller] = set()
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except HttpParserError:
            self._refuse()
        else:
            self._expect_request()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        caller = Caller(self.cycle, self._outlet, turn_of(self.loop), self._callers)
        offer(self.cycle.scope, caller)  # type: ignore[arg-type]
        self.cycle.send = caller.send  # type: ignore[method-assign, assignment]

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        if not self.pipeline:
            # Only who reads notices that the other end has gone.
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        last = self._deaf and not self.pipeline
        super().on_response_complete()
        if last:
            self._outlet.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._outlet.full = True
        self._wait_for(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._outlet.full = False
        self._go_on()
        for caller in self._callers:
            caller.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._outlet.lost()
        self._go_on()
        for caller in list(self._callers):
            caller.hang_up()

    def send_400_response(self, msg: str) -> None:
        answer = answer_to(BadRequest(msg, code="invalid_http"))
        headers = (
            f"content-type: application/json\r\ncontent-length: {len(answer.body)}\r\n"
            f"x-request-id: {request_id(None)}\r\nconnection: close\r\n\r\n"
        )
        self._outlet.write(STATUS_LINE[answer.status] + headers.encode() + answer.body)
        self._outlet.close()

    def _refuse(self) -> None:
        """What is no HTTP. Requests that came before it are still answered, and the connection ends after the last."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not self.pipeline):
            self.send_400_response("Invalid HTTP request received.")
            return
        self._deaf = True
        if cycle.more_body:
            # It is what waits last, and what is wrong.
            self.pipeline.popleft()
        else:
            cycle.keep_alive = False

    def _expect_request(self) -> None:
        """Where none is under way: uvicorn waits for ever for the first one, and for the rest of a head."""
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _feed(self, data: bytes) -> None:
        """A client that would rather speak another protocol is answered in this one, as it must expect (RFC 9110,
        section 7.8). The parser takes the body for the other protocol, so it gets the head again, without the wish:
        Java's client wishes for HTTP/2 whatever it sends.
        """
        rest = memoryview(data)
        while True:
            try:
                return self.parser.feed_data(rest)
            except HttpParserUpgrade as wish:
                rest = rest[wish.args[0] :]
            head = self._head_without_wish()
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)

    def _head_without_wish(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise HttpParserError("CONNECT is not supported")
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version), *lines, b"", b""])

    def _wait_for(self, unsent: int) -> None:
        """So many bytes have to become fewer."""
        self._cutting = self.loop.call_later(self.patience, self._look, unsent)

    def _look(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent > before - _LEAST:
            self.transport.abort()
        else:
            self._wait_for(unsent)

    def _go_on(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None
