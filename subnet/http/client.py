"""HTTP client for one inference server: JSON requests, and responses as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import msgspec

from subnet.errors import NodeError, RequestError, SubnetError, WireError
from subnet.http.bodies import MAX_JSON, drain, parse_json, read_error_body, read_json, read_text, translate_errors
from subnet.http.credentials import Credentials
from subnet.http.error_map import is_error, to_error
from subnet.http.node_spec import NodeSpec
from subnet.http.sse import Event, SseParser
from subnet.version import VERSION

T = TypeVar("T")

# How long to keep an idle connection, in seconds; providers close theirs after about a minute.
_KEEPALIVE_TIMEOUT = 15.0
# Limit of the events of one response, in bytes, for servers that never end one.
_MAX_EVENT_BYTES = 256 << 20
# What may precede JSON: white space, and a byte order mark.
_SPACE = b" \t\r\n\xef\xbb\xbf"
_HEADERS = {"user-agent": f"subnet/{VERSION}", "accept-encoding": "identity"}


class EventStream:
    """Events of the response of `peer`, whose body is `parts`, to be iterated over once. `check_json` raises an error
    for a JSON value that is an error.

    `is_json`, known once there was an event: the server sent one JSON value instead of events; its text is the data of
    the only event. That is told by the first character, as some servers declare one as the other.
    """

    def __init__(self, peer: str, parts: AsyncIterator[bytes], check_json: Callable[[Any], object]) -> None:
        self.is_json = False
        self._check_json = check_json
        self._peer = peer
        self._parts = parts
        self._size = 0
        self._iterator = self._iterate()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterator

    async def aclose(self) -> None:
        await self._iterator.aclose()

    async def _iterate(self) -> AsyncGenerator[Event, None]:
        start = await self._read_start()
        if start.startswith(b"<"):
            raise WireError(f"{self._peer} answered with an HTML page")
        if start.startswith((b"{", b"[")):
            self.is_json = True
            yield await self._read_json(start)
            return
        parser = SseParser()
        for event in parser.feed(start):
            yield event
        async for part in self._read(_MAX_EVENT_BYTES):
            for event in parser.feed(part):
                yield event
        for event in parser.flush():
            yield event

    async def _read_start(self) -> bytes:
        """Return the first part that is not only white space."""
        async for part in self._read(_MAX_EVENT_BYTES):
            if start := part.lstrip(_SPACE):
                return start
        return b""

    async def _read_json(self, start: bytes) -> Event:
        body = bytearray(start)
        async for part in self._read(MAX_JSON):
            body += part
        self._check_json(parse_json(body, self._peer))
        return Event(body.decode(errors="replace"))

    async def _read(self, limit: int) -> AsyncGenerator[bytes, None]:
        with translate_errors(self._peer):
            async for part in self._parts:
                self._size += len(part)
                if self._size > limit:
                    raise WireError(f"{self._peer} sent more than {limit} bytes")
                yield part


class HttpClient:
    """Client of the server of `spec`; connects on the first request. Close with aclose() or `async with`.

    A path that begins with /v1/ is relative to `v1`, any other to `root`, whether or not the address ends with /v1.
    `peer` is the server's name in messages. Only connecting has a timeout; callers limit the time of a response. Bodies
    are any values that msgspec can encode as JSON.

    All methods raise NodeError or RequestError: NodeLost if the server is unreachable, ResponseLost if
    a connection was lost before the end of the response, WireError for an invalid response, and for
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

    @asynccontextmanager
    async def events(self, path: str, body: Any) -> AsyncIterator[EventStream]:
        """Post `body` as JSON, and return the events of the response.

        Leaving the block before the last event closes the connection, so that the server stops working.
        """
        async with self._response("POST", path, body, accept="text/event-stream") as response:
            async with aclosing(EventStream(self.peer, response.content.iter_any(), self._check)) as stream:
                yield stream
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
            return aiohttp.TCPConnector(limit=0, force_close=True)
        return aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_TIMEOUT)

    def _check(self, body: Any) -> Any:
        """Return a JSON value. Raises the error that it contains."""
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
        redacted = type(error)(
            redact(error.message), retry_after=error.retry_after, param=None if param is None else redact(param)
        )
        if isinstance(redacted, RequestError) and isinstance(error, RequestError):
            redacted.status = error.status
            redacted.upstream_type = None if error.upstream_type is None else redact(error.upstream_type)
            redacted.upstream_code = None if error.upstream_code is None else redact(error.upstream_code)
        return redacted
