"""An answer that is whole when it is sent."""

from __future__ import annotations

from collections.abc import Mapping

from adapter.http.asgi import Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]


class Response:
    """`media_type` None: no content, and no header that speaks of it."""

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
        self.headers: Headers = encoded(headers or {})
        if media_type is not None:
            self.headers += ((b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def encoded(headers: Mapping[str, str]) -> Headers:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
