"""uvicorn's HTTP protocol, with OpenAI's words for what is no HTTP, and an end to patience with who does not read."""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from adapter.errors import BadRequest, answer_to
from adapter.push import DIRECT
from adapter.request_id import request_id
from adapter.turn import Turn, turn_of


class HttpProtocol(HttpToolsProtocol):
    """A connection is cut when for `patience` seconds its client has taken too little for a send to go on."""

    patience = 120.0
    _cutting: TimerHandle | None = None

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        scope: dict[str, object] = self.cycle.scope  # type: ignore[assignment]
        scope["extensions"] = {DIRECT: _direct(self.cycle, turn_of(self.loop))}

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


def _direct(cycle: RequestResponseCycle, turn: Turn) -> Callable[[bytes], bool]:
    """What `cycle.send` does for a part of a chunked body, without a coroutine and a message for each.

    All parts of one turn of the event loop are written at its end, as one: a turn brings what nodes sent to many
    clients, and the processor is quicker at one thing after the other than at all of it by turns. And when the
    gateway is behind, a turn brings several parts for one client.
    """
    transport, flow = cycle.transport, cycle.flow
    parts: list[bytes] = []

    def flush() -> None:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def direct(data: bytes) -> bool:
        if flow.write_paused:
            return False
        if not parts:
            turn.at_end(flush)
        parts.append(data)
        return True

    return direct
