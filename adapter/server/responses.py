"""Responses with a whole body, and responses whose body is written by a producer."""

from __future__ import annotations

from collections.abc import Mapping

from adapter.server.asgi import Receive, Scope, Send
from adapter.server.response_writer import Header


class Response:
    """ASGI application that sends `body`. With `media_type` None it sends no content headers."""

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = "application/json",
    ) -> None:
        self.status = status
        self.body = body
        self.headers = encode_headers(headers or {})
        if media_type is not None:
            self.headers += ((b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def encode_headers(headers: Mapping[str, str]) -> list[Header]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
