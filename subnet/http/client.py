"""HTTP client for one inference server: JSON requests, and responses as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from subnet.errors import NodeError, NodeLost, ResponseLost, SubnetError, WireError
from subnet.http.bodies import drain, read_error_body, read_json, translate_errors
from subnet.http.credentials import Credentials
from subnet.http.error_map import is_error, to_error
from subnet.http.node_spec import NodeSpec
from subnet.http.sse import Event, SseParser
from subnet.version import VERSION

# How long to keep an idle connection, in seconds; providers close theirs after about a minute.
_KEEPALIVE_TIMEOUT = 15.0
# Limit of the events of one response, in bytes, for servers that never end one.
_MAX_EVENT_BYTES = 256 << 20
_HEADERS = {"user-agent": f"subnet/{VERSION}", "accept-encoding": "identity"}


class EventStream:
    """Events of one response, to be iterated over once.

    `is_json`: the server sent one JSON value instead of events; its text is the data of the only event.
    """

    def __init__(self, iterator: AsyncIterator[Event], *, is_json: bool) -> None:
        self.is_json = is_json
        self._iterator = iterator

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterator


class HttpClient:
    """Client of the server of `spec`; connects on the first request. Close with aclose() or `async with`.

    A path that begins with /v1/ is relative to `v1`, any other to `root`, whether or not the address ends with /v1.
    `peer` is the server's name in messages. Only connecting has a timeout; callers limit the time of a response. Bodies
    are any values that msgspec can encode as JSON.

    All methods raise NodeError or RequestError: NodeLost if the server is unreachable or resets a new connection,
    ResponseLost if a response is truncated or a reused connection was lost, WireError for an invalid response, and for
    an error response, even one with status 200, the error that subnet.http.error_map maps it to. Redirects are not
    followed, because the API key is for this server only. The key is never part of an error, a log line or a repr.

    Raises SettingsError for an unusable CA bundle or header.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self._credentials = Credentials(spec)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=spec.connect_timeout)
        self._session: aiohttp.ClientSession | None = None
        self.peer = spec.peer
        self.root = self._credentials.root
        self.v1 = self._credentials.v1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice; a further request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str) -> Any:
        """Return the JSON value at `path`."""
        async with self._response("GET", path) as response:
            return await self._json(response)

    async def post(self, path: str, body: Any) -> Any:
        """Post `body` as JSON, and return the JSON value of the response."""
        async with self._response("POST", path, body) as response:
            return await self._json(response)

    @asynccontextmanager
    async def events(self, path: str, body: Any) -> AsyncIterator[EventStream]:
        """Post `body` as JSON, and return the events of the response.

        Leaving the block before the last event closes the connection, so that the server stops working.
        """
        async with self._response("POST", path, body, accept="text/event-stream") as response:
            if response.content_type == "text/html":
                raise WireError(f"{self.peer} answered with an HTML page")
            is_json = response.content_type == "application/json"
            async with aclosing(self._json_event(response) if is_json else self._events(response)) as iterator:
                yield EventStream(iterator, is_json=is_json)
            await drain(response)

    def to_error(self, body: Any) -> SubnetError:
        """Convert an error body that arrived with status 200, or in an event, to the error to raise."""
        return self._redacted(to_error(self.peer, 200, body))

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        parser, size = SseParser(), 0
        with translate_errors(self.peer, ResponseLost):
            async for data in response.content.iter_any():
                size += len(data)
                if size > _MAX_EVENT_BYTES:
                    raise WireError(f"{self.peer} sent more than {_MAX_EVENT_BYTES} bytes")
                for event in parser.feed(data):
                    yield event
        for event in parser.flush():
            yield event

    async def _json_event(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        yield Event(msgspec.json.encode(await self._json(response)).decode())

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, body: Any = None, accept: str = "application/json"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Return a response with status 2xx. Leaving the block with an error closes its connection."""
        response = await self._request(method, path, body, accept)
        try:
            if response.status >= 300:
                raise await self._status_error(response)
            yield response
        except BaseException:
            response.close()
            raise
        response.release()

    async def _request(self, method: str, path: str, body: Any, accept: str) -> aiohttp.ClientResponse:
        headers = _HEADERS | {"accept": accept}
        data = None
        if method == "POST":
            headers["content-type"] = "application/json"
            data = msgspec.json.encode(body)
        connection = _Connection()
        try:
            with translate_errors(self.peer):
                return await self._open_session().request(
                    method,
                    self._credentials.url(path),
                    data=data,
                    headers=headers | self._credentials.headers(),
                    proxy=self._credentials.proxy,
                    ssl=self._credentials.ssl or True,
                    allow_redirects=False,
                    trace_request_ctx=connection,
                )
        except NodeLost as error:
            if connection.is_reused:
                # The server may have closed an idle connection, which says nothing about its health.
                raise ResponseLost(error.message) from error
            raise

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[_trace_reuse()],
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        """Return a connector that reuses connections for HTTPS only.

        A request on a reused connection may fail: llama-server closes connections after a stream without notice, and
        uvicorn after 5 idle seconds. Without TLS a new connection costs next to nothing.
        """
        if self.root.startswith("http:"):
            return aiohttp.TCPConnector(limit=0, force_close=True)
        return aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_TIMEOUT)

    async def _json(self, response: aiohttp.ClientResponse) -> Any:
        body = await read_json(response, self.peer)
        if is_error(body):
            raise self.to_error(body)
        return body

    async def _status_error(self, response: aiohttp.ClientResponse) -> SubnetError:
        if response.status < 400:
            return NodeError(f"{self.peer} answered {response.status}, a redirect: set the address it redirects to")
        body = await read_error_body(response, self.peer)
        return self._redacted(to_error(self.peer, response.status, body, response.headers))

    def _redacted(self, error: SubnetError) -> SubnetError:
        redact, param = self._credentials.redact, error.param
        return type(error)(
            redact(error.message), retry_after=error.retry_after, param=None if param is None else redact(param)
        )


class _Connection:
    """Connection of one request. `is_reused`: an earlier request has used it."""

    is_reused = False


def _trace_reuse() -> aiohttp.TraceConfig:
    async def on_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        context.trace_request_ctx.is_reused = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(on_reuse)
    return trace
