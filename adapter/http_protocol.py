"""uvicorn's HTTP protocol, with OpenAI's words for what is no HTTP, and an end to patience with who does not read."""

from __future__ import annotations

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from adapter.caller import Caller, offer
from adapter.errors import BadRequest, answer_to
from adapter.request_id import request_id
from adapter.turn import turn_of


class HttpProtocol(HttpToolsProtocol):
    """A connection is cut when for `patience` seconds its client has taken too little for a send to go on."""

    patience = 120.0
    _cutting: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._callers: set[Caller] = set()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        caller = Caller(self.cycle, turn_of(self.loop), self._callers)
        offer(self.cycle.scope, caller)  # type: ignore[arg-type]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.pipeline:
            # Only who reads notices that the other end has gone.
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cutting = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()
        for caller in self._callers:
            caller.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._go_on()
        for caller in list(self._callers):
            caller.hang_up()

    def send_400_response(self, msg: str) -> None:
        answer = answer_to(BadRequest(msg, code="invalid_http"))
        headers = (
            f"content-type: application/json\r\ncontent-length: {len(answer.body)}\r\n"
            f"x-request-id: {request_id(None)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[answer.status] + headers.encode() + answer.body)
        self.transport.close()

    def _go_on(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None
