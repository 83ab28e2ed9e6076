"""One inference server, over HTTP: JSON, and answers that come as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from subnet.errors import NodeError, SubnetError, WireError
from subnet.http.bodies import error_of, json_of, linger, translated
from subnet.http.credentials import Access
from subnet.http.error_map import has_error, refusal
from subnet.http.node_spec import NodeSpec
from subnet.http.sse import Event, SseParser
from subnet.version import VERSION

# How long an idle connection is kept, in seconds; providers do so for a minute.
_IDLE = 15.0
# Of the events of one answer, in bytes: who sends more does not come to an end.
_LONGEST = 256 << 20
_HEADERS = {"user-agent": f"subnet/{VERSION}", "accept-encoding": "identity"}


class Events:
    """What one request brings, to be iterated over once.

    `whole`: the server sent no events, but one JSON value: its text is the data of the only event.
    """

    def __init__(self, iterator: AsyncIterator[Event], *, whole: bool) -> None:
        self.whole = whole
        self._iterator = iterator

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterator


class Http:
    """A server, reached as `spec` says; connects when it is first asked. Close with aclose() or `async with`.

    A path that begins with /v1/ is taken below `v1`, any other below `root`, whether the address ends with /v1 or not.
    `peer` is what messages call it. Only connecting is bounded in time: the caller knows how long an answer may take.
    Bodies are any values that msgspec encodes as JSON.

    Everything raises NodeError or RequestError: NodeLost where nothing can be reached or an answer is cut, WireError
    for what is no answer at all, and for a refusal what subnet.upstream.refusals makes of it, also when it comes with
    status 200. Redirects are not followed: the key is for this server alone, and it is in no error, log or repr.
    Raises SettingsError for a bundle or a header that cannot be used.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self._access = Access(spec)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=spec.connect_timeout)
        self._session: aiohttp.ClientSession | None = None
        self.peer = spec.peer
        self.root = self._access.root
        self.v1 = self._access.v1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of all connections. Safe to call twice; the next request makes new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str) -> Any:
        """The JSON value that is there."""
        async with self._response("GET", path) as response:
            return await self._json(response)

    async def post(self, path: str, body: Any) -> Any:
        """The JSON value that the server answers to `body`."""
        async with self._response("POST", path, body) as response:
            return await self._json(response)

    @asynccontextmanager
    async def events(self, path: str, body: Any) -> AsyncIterator[Events]:
        """The events with which the server answers to `body`. Leaving the block before their end closes the connection,
        so that the server stops working.
        """
        async with self._response("POST", path, body, accept="text/event-stream") as response:
            if response.content_type == "text/html":
                raise WireError(f"{self.peer} answered with an HTML page")
            whole = response.content_type == "application/json"
            async with aclosing(self._whole(response) if whole else self._events(response)) as iterator:
                yield Events(iterator, whole=whole)
            await linger(response)

    def refused(self, body: Any) -> SubnetError:
        """The error for an error that came as an event."""
        return self._hidden(refusal(self.peer, 200, body))

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        parser, size = SseParser(), 0
        with translated(self.peer):
            async for data in response.content.iter_any():
                size += len(data)
                if size > _LONGEST:
                    raise WireError(f"{self.peer} sent more than {_LONGEST} bytes")
                for event in parser.feed(data):
                    yield event
        for event in parser.flush():
            yield event

    async def _whole(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        yield Event(msgspec.json.encode(await self._json(response)).decode())

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, body: Any = None, accept: str = "application/json"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that is no refusal. Leaving the block with an error closes its connection."""
        response = await self._ask(method, path, body, accept)
        try:
            if response.status >= 300:
                raise await self._refusal(response)
            yield response
        except BaseException:
            response.close()
            raise
        response.release()

    async def _ask(self, method: str, path: str, body: Any, accept: str) -> aiohttp.ClientResponse:
        headers = _HEADERS | {"accept": accept}
        data = None
        if method == "POST":
            headers["content-type"] = "application/json"
            data = msgspec.json.encode(body)
        with translated(self.peer):
            return await self._opened().request(
                method,
                self._access.url(path),
                data=data,
                headers=headers | self._access.headers(),
                proxy=self._access.proxy,
                ssl=self._access.ssl or True,
                allow_redirects=False,
            )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(), timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        """llama-server closes a connection after a stream without a word, uvicorn after 5 idle seconds: a request may
        meet that. Where a new connection costs next to nothing, none is used twice.
        """
        if self.root.startswith("http:"):
            return aiohttp.TCPConnector(limit=0, force_close=True)
        return aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE)

    async def _json(self, response: aiohttp.ClientResponse) -> Any:
        body = await json_of(response, self.peer)
        if has_error(body):
            raise self.refused(body)
        return body

    async def _refusal(self, response: aiohttp.ClientResponse) -> SubnetError:
        if response.status < 400:
            return NodeError(f"{self.peer} answered {response.status}, a redirect: set the address it redirects to")
        body = await error_of(response, self.peer)
        return self._hidden(refusal(self.peer, response.status, body, response.headers))

    def _hidden(self, error: SubnetError) -> SubnetError:
        hide, param = self._access.hide, error.param
        return type(error)(
            hide(error.message), retry_after=error.retry_after, param=None if param is None else hide(param)
        )
