"""HTTP client for one inference server: JSON requests, and responses as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from subnet.errors import NodeError, RequestError, SubnetError
from subnet.http.bodies import (
    MAX_ERROR_BODY,
    BodyCollector,
    connect_error,
    drain,
    parse_error_body,
    read_error_body,
    read_json,
    read_text,
    translate_errors,
)
from subnet.http.connection_pool import ConnectionPool
from subnet.http.content_coding import decoded
from subnet.http.credentials import Credentials
from subnet.http.error_map import is_error, to_error
from subnet.http.event_reader import EventReader, EventSink, EventStream
from subnet.http.lookup import SYSTEM_NAMES, Names, tcp_connector
from subnet.http.node_spec import Kind, NodeSpec
from subnet.http.request_encoder import encode_post
from subnet.http.response_parser import BodyReceiver, ResponseHead
from subnet.version import VERSION

T = TypeVar("T")

# How long to keep an idle connection, in seconds; providers close theirs after about a minute.
_KEEPALIVE_TIMEOUT = 15.0
# They close connections after a response without a word.
_NOT_REUSED: frozenset[Kind] = frozenset({"llama-server"})
_HEADERS = {"user-agent": f"subnet/{VERSION}", "accept-encoding": "identity"}
_EVENT_HEADERS = {"accept": "text/event-stream", "content-type": "application/json"}


class HttpClient:
    """Client of the server of `spec`; connects on the first request. Close with aclose() or `async with`.

    A path that begins with /v1/ is relative to `v1`, any other to `root`, whether or not the address ends with /v1.
    `peer` is the server's name in messages. Only connecting has a timeout; callers limit the time of a response. Bodies
    are any values that msgspec can encode as JSON.

    All methods raise NodeError or RequestError: NodeLost if the server is unreachable, ResponseLost if
    a connection was lost before the end of the response, WireError for an invalid response, and for
    an error response, even one with status 200, the error that subnet.http.error_map maps it to. Redirects are not
    followed, because the API key is for this server only. The key is never part of an error, a log line or a repr.
    Host names are resolved by `names`.

    Raises SettingsError for an unusable CA bundle or header.
    """

    def __init__(self, spec: NodeSpec, names: Names = SYSTEM_NAMES) -> None:
        self._names = names
        self._credentials = Credentials(spec)
        self._reuse = spec.kind not in _NOT_REUSED
        self._connections = ConnectionPool(
            spec.peer, urlsplit(spec.url), self._credentials.ssl, spec.connect_timeout, names, reuse=self._reuse
        )
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
        self._connections.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str) -> Any:
        """Return the JSON value at `path`."""
        async with self._response("GET", path) as response:
            return await read_json(response, self.peer, self._check)

    async def get_text(self, path: str) -> str:
        """Return the text at `path`."""
        async with self._response("GET", path) as response:
            return await read_text(response, self.peer)

    async def post(self, path: str, body: Any) -> Any:
        """Post `body` as JSON, and return the JSON value of the response."""
        return await self.post_and_read(path, body, lambda value: value)

    async def post_and_read(self, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """Post `body` as JSON, and return the result of `read` for the JSON value of the response.

        If the response is large, `read` is called in a thread.
        """
        async with self._response("POST", path, body) as response:
            return await read_json(response, self.peer, lambda value: read(self._check(value)))

    async def stream(self, path: str, body: Any, sink: EventSink) -> None:
        """Post `body` as JSON, and pass the events of the response to `sink`, without a task switch for each.

        Returns at the end of the response, or as soon as the sink is done. Cancelling the call closes the connection,
        so that the server stops working; so does an error that the sink raises, which is raised here.
        """
        reader = EventReader(self.peer, sink, self._check)
        if self._credentials.proxy is not None:
            await self._stream_by_proxy(path, body, reader)
            return
        error_body = BodyCollector(MAX_ERROR_BODY)
        headers = _HEADERS | _EVENT_HEADERS | self._credentials.headers()

        def on_head(head: ResponseHead) -> BodyReceiver:
            if head.status < 300:
                return decoded(reader, head.headers.get("content-encoding", ""))
            error_body.done = head.status < 400
            return decoded(error_body, head.headers.get("content-encoding", ""))

        try:
            request = encode_post(
                self._credentials.url(path), headers, msgspec.json.encode(body), keep_alive=self._reuse
            )
        except UnicodeError as error:
            raise connect_error(self.peer, error) from error
        head = await self._connections.exchange(request, on_head)
        if head.status >= 300:
            raise self._status_error(head.status, head.headers, bytes(error_body.data))

    @asynccontextmanager
    async def events(self, path: str, body: Any) -> AsyncIterator[EventStream]:
        """Post `body` as JSON, and return the events of the response, to be iterated over once.

        Leaving the block before the last event closes the connection, so that the server stops working.
        """
        async with aclosing(EventStream(partial(self.stream, path, body))) as stream:
            yield stream

    async def _stream_by_proxy(self, path: str, body: Any, reader: EventReader) -> None:
        """Do the same as `stream`, through aiohttp."""
        async with self._response("POST", path, body, accept="text/event-stream") as response:
            parts = response.content.iter_any()
            while not reader.done:
                with translate_errors(self.peer):
                    part = await anext(parts, None)
                if part is None:
                    reader.end()
                    return
                reader.feed(part)
            await drain(response)

    def to_error(self, body: Any) -> SubnetError:
        """Convert an error body that arrived with status 200, or in an event, to the error to raise."""
        return self._redacted(to_error(self.peer, 200, body))

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, body: Any = None, accept: str = "application/json"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Return a response with status 2xx. Leaving the block with an error closes its connection."""
        response = await self._request(method, path, body, accept)
        try:
            if response.status >= 300:
                body = await read_error_body(response, self.peer) if response.status >= 400 else b""
                raise self._status_error(response.status, response.headers, body)
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
        with translate_errors(self.peer):
            return await self._open_session().request(
                method,
                self._credentials.url(path),
                data=data,
                headers=headers | self._credentials.headers(),
                proxy=self._credentials.proxy,
                ssl=self._credentials.ssl or True,
                allow_redirects=False,
            )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(), timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        """Return a connector that reuses connections for HTTPS only.

        A request on a reused connection may fail: llama-server closes connections after a stream without notice, and
        uvicorn after 5 idle seconds. Without TLS a new connection costs next to nothing.
        """
        if self.root.startswith("http:"):
            return tcp_connector(self._names, force_close=True)
        return tcp_connector(self._names, keepalive_timeout=_KEEPALIVE_TIMEOUT)

    def _check(self, body: Any) -> Any:
        """Return a JSON value. Raises the error that it contains."""
        if is_error(body):
            raise self.to_error(body)
        return body

    def _status_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SubnetError:
        if status < 400:
            return NodeError(f"{self.peer} answered {status}, a redirect: set the address it redirects to")
        return self._redacted(to_error(self.peer, status, parse_error_body(body), headers))

    def _redacted(self, error: SubnetError) -> SubnetError:
        redact, param = self._credentials.redact, error.param
        redacted = type(error)(
            redact(error.message), retry_after=error.retry_after, param=None if param is None else redact(param)
        )
        if isinstance(redacted, NodeError) and isinstance(error, NodeError):
            redacted.status = error.status
        if isinstance(redacted, RequestError) and isinstance(error, RequestError):
            redacted.status, redacted.room = error.status, error.room
            redacted.upstream_type = None if error.upstream_type is None else redact(error.upstream_type)
            redacted.upstream_code = None if error.upstream_code is None else redact(error.upstream_code)
        return redacted
