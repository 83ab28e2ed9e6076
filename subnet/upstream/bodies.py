"""The bodies of responses."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from subnet.errors import WireError
from subnet.upstream.faults import translated

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
