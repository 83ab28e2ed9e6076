"""A response whose body is pushed by who makes it, instead of being asked for piece by piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from adapter.server.asgi import Receive, Scope, Send
from adapter.server.response_writer import caller_of

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


Write = Callable[[bytes], None]


class PushedResponse:
    """Calls `produce` with the function that takes the body's parts. Status and headers go out with the first part, so
    that an error before it can still be a plain answer.
    """

    def __init__(self, produce: Callable[[Write], Awaitable[None]], headers: Mapping[str, str]) -> None:
        self._produce = produce
        self._headers = encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._produce(caller_of(scope).write)
        await send({"type": "http.response.body"})
