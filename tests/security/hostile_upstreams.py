"""Upstream server whose answers are floods: `python -m tests.security.hostile_upstreams`.

It has a model for each kind of flood. It prints its address, and ends with standard input.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'


def _compressed(data: bytes) -> bytes:
    return _HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(data)


FLOODS: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "comments": lambda: (_HEAD + b"\r\ndata: {}\n\n", b":\n" * (1 << 19)),
    "empty-events": lambda: (_HEAD + b"\r\n", b"data: {}\n\n" * (1 << 17)),
    "text": lambda: (_HEAD + b"\r\n", _EVENT * (1 << 14)),
    "compressed-lines": lambda: (_compressed(b"data: {}\n\n" + b"\n" * (64 << 20)), b""),
    "compressed-text": lambda: (_compressed(_EVENT * (1 << 20)), b""),
    "many-items": lambda: (_HEAD + b'\r\ndata: {"choices":[' + b"[]," * (5 << 20) + b"[]]}\n\n", b""),
    "endless-line": lambda: (_HEAD + b"\r\ndata: ", b"x" * (1 << 16)),
}
"""Beginning of a response, and what follows again and again, by the name of the model."""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            body = json.dumps({"object": "list", "data": [{"id": kind} for kind in FLOODS]}).encode()
            found = head.startswith(b"GET /v1/models")
            status = b"200 OK" if found else b"404 Not Found"
            writer.write(b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
            await writer.drain()
        elif (length := re.search(rb"content-length: (\d+)", head, re.IGNORECASE)) is not None:
            kind = json.loads(await reader.readexactly(int(length[1])))["model"]
            beginning, more = FLOODS[kind]()
            writer.write(beginning)
            while more:
                writer.write(more)
                await writer.drain()
            await writer.drain()
            await reader.read()
    writer.close()


async def serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        print(f"serving floods on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
