"""Responses with a whole body, and responses whose body is written by a producer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from adapter.server.asgi import Receive, Scope, Send
from adapter.server.response_writer import Header


class Response:
    """ASGI application that sends `body`, which may be in blocks.

    With `media_type` None it sends no content headers. It can be sent once.
    """

    def __init__(
        self,
        body: bytes | Sequence[bytes] = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = "application/json",
    ) -> None:
        self.status = status
        self.blocks = [body] if isinstance(body, bytes) else list(body)
        self.headers = encode_headers(headers or {})
        if media_type is not None:
            self.headers += (
                (b"content-type", media_type.encode()),
                (b"content-length", b"%d" % sum(map(len, self.blocks))),
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        # Each block waits until the client has read the one before it, which is freed then.
        blocks = deque(self.blocks)
        self.blocks = []
        while len(blocks) > 1:
            await send({"type": "http.response.body", "body": blocks.popleft(), "more_body": True})
            # A client that reads fast never makes it wait.
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": blocks.pop(), "more_body": False})


def encode_headers(headers: Mapping[str, str]) -> list[Header]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
