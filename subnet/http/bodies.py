"""Response bodies, read within limits of size and time."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import aiohttp

from subnet.errors import NodeLost, ResponseLost, WireError
from subnet.http.lenient_json import decode, decode_by_items
from subnet.threads import Threads

T = TypeVar("T")

MAX_JSON = 64 << 20
"""Limit of a JSON response, in bytes."""

MAX_ERROR_BODY = 64 << 10
"""Limit of an error body, in bytes."""

# From this size on, in bytes, a response is decoded in a thread. Below, that takes a few milliseconds.
_LARGE = 256 << 10
_threads = Threads(2, "large-response")
# Time to wait for the end of a response after its last event, so that the connection can be reused. In seconds.
_DRAIN_TIMEOUT = 0.05


async def read_json(response: aiohttp.ClientResponse, peer: str, read: Callable[[Any], T]) -> T:
    """Return the result of `read` for the JSON value in the body. If that is large, `read` is called in a thread.

    Raises ResponseLost if the body is truncated, WireError if it is invalid or larger than 64 MiB, and the errors of
    `read`.
    """
    data = await _read_whole(response, peer)
    if len(data) < _LARGE:
        return read(parse_json(data, peer))
    return await _threads.run(lambda: read(parse_json(data, peer, decode_by_items)))


async def read_text(response: aiohttp.ClientResponse, peer: str) -> str:
    """Return the body as text. Raises ResponseLost and WireError, too."""
    return (await _read_whole(response, peer)).decode(errors="replace")


def parse_json(data: bytes | bytearray, peer: str, decode: Callable[[bytes], Any] = decode) -> Any:
    """Return the JSON value of a body. Raises WireError."""
    try:
        return decode(bytes(data))
    except ValueError as error:
        raise WireError(f"{peer} sent invalid JSON: {error}") from error


async def read_error_body(response: aiohttp.ClientResponse, peer: str) -> bytes:
    """Return at most the first 64 KiB of the body."""
    return (await _read(response, peer, MAX_ERROR_BODY))[:MAX_ERROR_BODY]


def parse_error_body(data: bytes) -> Any:
    """Return the JSON value of an error body, or its text if it is not JSON."""
    try:
        return decode(data)
    except ValueError:
        return data.decode(errors="replace")


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read the bytes that may follow the last event, for a short time."""
    with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            await response.content.readany()


async def _read_whole(response: aiohttp.ClientResponse, peer: str) -> bytes:
    data = await _read(response, peer, MAX_JSON)
    if len(data) > MAX_JSON:
        raise WireError(f"{peer} sent a response of more than {MAX_JSON} bytes")
    return data


async def _read(response: aiohttp.ClientResponse, peer: str, limit: int) -> bytes:
    """Return the body, or a bit more than its first `limit` bytes if it is longer."""
    data = bytearray()
    with translate_errors(peer):
        async for part in response.content.iter_any():
            data += part
            if len(data) > limit:
                break
    return bytes(data)


class BodyCollector:
    """Receiver that keeps the beginning of a body, up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.done = False
        self.data = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> None:
        self.data += data[: self._limit - len(self.data)]
        self.done = len(self.data) == self._limit

    def end(self) -> None:
        return


@contextmanager
def translate_errors(peer: str) -> Iterator[None]:
    """Convert aiohttp's errors: to NodeLost if no connection could be made, ResponseLost if it was lost later, and
    WireError for invalid HTTP. `peer` is the server's address.
    """
    try:
        yield
    except aiohttp.ClientHttpProxyError as error:
        raise NodeLost(f"the proxy for {peer} answered {error.status}") from error
    except aiohttp.ClientResponseError as error:
        raise WireError(f"{peer} sent an invalid HTTP response") from error
    except (TimeoutError, aiohttp.ClientConnectorError, aiohttp.InvalidURL, UnicodeError) as error:
        raise connect_error(peer, error) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ResponseLost(f"the connection to {peer} was lost") from error


def connect_error(peer: str, error: Exception) -> NodeLost:
    """Return the error for a connection to `peer` that could not be made."""
    if isinstance(error, TimeoutError):
        return NodeLost(f"connecting to {peer} timed out (connect_timeout)")
    return NodeLost(f"cannot connect to {peer}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return the operating system's message, without the text that aiohttp adds."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, ssl.SSLError):
        return str(error)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number is not None and number > 0 else getattr(error, "strerror", None) or str(error)
