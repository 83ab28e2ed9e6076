"""The bytes of a connection: WebSocket frames, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One WebSocket frame that a server sent: its first byte and its payload."""
    first, size = await reader.readexactly(2)
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first, await reader.readexactly(size)


def write_frame(first: int, payload: bytes) -> bytes:
    """The bytes that `read_frame` reads so."""
    size = len(payload)
    if size <= 125:
        return bytes((first, size)) + payload
    narrow = size <= 0xFFFF
    return bytes((first, 126 if narrow else 127)) + size.to_bytes(2 if narrow else 8, "big") + payload


def close(writer: asyncio.StreamWriter) -> None:
    """With FIN."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """With RST: what a peer that knows nothing of a connection answers."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
