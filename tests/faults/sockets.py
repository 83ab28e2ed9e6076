"""The bytes of a connection: WebSocket frames, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One WebSocket frame that a server sent: its header and its payload."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size > 125:
        wide = await reader.readexactly(2 if size == 126 else 8)
        head, size = head + wide, int.from_bytes(wide, "big")
    return head, await reader.readexactly(size)


def close(writer: asyncio.StreamWriter) -> None:
    """With FIN."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """With RST: what a peer that knows nothing of a connection answers."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
