"""A response whose body is pushed by who makes it, instead of being asked for piece by piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from adapter.http.asgi import Receive, Scope, Send
from adapter.http.caller import caller_of
from adapter.http.response import encoded

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
