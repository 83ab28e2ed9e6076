"""uvicorn's HTTP protocol, with OpenAI's words for what is no HTTP, and an end to patience with who does not read."""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from adapter.errors import BadRequest, answer_to
from adapter.push import DIRECT
from adapter.request_id import request_id


class HttpProtocol(HttpToolsProtocol):
    """A connection is cut when for `patience` seconds its client has taken too little for a send to go on."""

    patience = 120.0
    _cutting: TimerHandle | None = None

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        scope: dict[str, object] = self.cycle.scope  # type: ignore[assignment]
        scope["extensions"] = {DIRECT: _direct(self.cycle)}

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cutting = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._go_on()

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


def _direct(cycle: RequestResponseCycle) -> Callable[[bytes], bool]:
    """What `cycle.send` does for a part of a chunked body, without a coroutine and a message for each."""
    write, flow = cycle.transport.write, cycle.flow

    def direct(data: bytes) -> bool:
        if flow.write_paused:
            return False
        if not cycle.disconnected:
            write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    return direct
