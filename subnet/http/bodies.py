"""The bodies of responses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp
import msgspec

from subnet.errors import NodeLost, WireError

# Of a JSON answer, and of an error's, in bytes.
_LONGEST = 64 << 20
_LONGEST_ERROR = 64 << 10
# For the last bytes of an answer that was read to its end, so that its connection can be used again. In seconds.
_LINGER = 0.05


async def json_of(response: aiohttp.ClientResponse, peer: str) -> Any:
    """The value that is the body. Raises NodeLost where it is cut, WireError where it is none, or more than 64 MiB."""
    data = await _read(response, peer, _LONGEST)
    if len(data) > _LONGEST:
        raise WireError(f"{peer} sent a response of more than {_LONGEST} bytes")
    try:
        return _decoded(data)
    except ValueError as error:
        raise WireError(f"{peer} sent invalid JSON for {response.url.path}: {error}") from error


async def error_of(response: aiohttp.ClientResponse, peer: str) -> Any:
    """The value that is the body, or its text where it is none; of long ones the beginning."""
    data = (await _read(response, peer, _LONGEST_ERROR))[:_LONGEST_ERROR]
    try:
        return _decoded(data)
    except ValueError:
        return data.decode(errors="replace")


async def linger(response: aiohttp.ClientResponse) -> None:
    """Whoever stops at the last event may leave some bytes that end the response."""
    with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
        async with asyncio.timeout(_LINGER):
            await response.content.readany()


async def _read(response: aiohttp.ClientResponse, peer: str, longest: int) -> bytes:
    """The body, at least its first `longest` bytes."""
    data = bytearray()
    with translated(peer):
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > longest:
                break
    return bytes(data)


def _decoded(data: bytes) -> Any:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """What aiohttp raises inside becomes NodeLost, or WireError for what is no HTTP. `peer` is the server's address."""
    try:
        yield
    except aiohttp.ClientHttpProxyError as error:
        raise NodeLost(f"the proxy for {peer} answered {error.status}") from error
    except aiohttp.ClientResponseError as error:
        raise WireError(f"{peer} sent an invalid HTTP response") from error
    except TimeoutError as error:
        raise NodeLost(f"connecting to {peer} timed out (connect_timeout)") from error
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL, UnicodeError) as error:
        raise NodeLost(f"cannot connect to {peer}: {_plain(error)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NodeLost(f"the connection to {peer} was lost") from error


def _plain(error: Exception) -> str:
    """The system's own words, without the library's."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number is not None and number > 0 else getattr(error, "strerror", None) or str(error)
