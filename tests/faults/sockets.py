"""WebSocket frames as bytes, and ways to end a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one WebSocket frame from a server; return its first byte and its payload."""
    first, size = await reader.readexactly(2)
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first, await reader.readexactly(size)


def write_frame(first: int, payload: bytes) -> bytes:
    """Encode a frame as `read_frame` reads it."""
    size = len(payload)
    if size <= 125:
        return bytes((first, size)) + payload
    narrow = size <= 0xFFFF
    return bytes((first, 126 if narrow else 127)) + size.to_bytes(2 if narrow else 8, "big") + payload


def close(writer: asyncio.StreamWriter) -> None:
    """Close the connection with FIN."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with RST, as a peer that does not know the connection."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
