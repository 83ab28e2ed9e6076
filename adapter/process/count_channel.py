"""Counts of several worker processes, added up in their parent over a pair of sockets for each.

A worker sends what it has counted since its last message, and the parent answers a message that asks for it with the
sum of all. Nothing is on disk, and what was sent survives the worker.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from adapter.counts import Counts

# Time for which counts are collected before they are sent, in seconds: a worker that is killed loses as much.
_INTERVAL = 0.1
# Bytes that may wait for a parent that does not read. Counts are added up until it does.
_MAX_UNSENT = 1 << 16
_LENGTH = 4


class _Report(msgspec.Struct):
    """Counts since the last report. `asks`: the worker waits for the sum of all."""

    counts: Counts
    asks: bool


_encode = msgspec.msgpack.encode
_decode_report = msgspec.msgpack.Decoder(_Report).decode
_decode_counts = msgspec.msgpack.Decoder(Counts).decode


class WorkerCounts:
    """Counts of a worker, which go to the parent over `channel`; a CountStore within `async with`.

    The parent may take `timeout` seconds to answer.
    """

    def __init__(self, channel: socket.socket, *, timeout: float = 5.0) -> None:
        self._channel = channel
        self._timeout = timeout
        self._pending = Counts()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[Counts]] = deque()
        self._writer: asyncio.StreamWriter
        self._receiving: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._channel)
        self._receiving = asyncio.create_task(self._receive(reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_timer()
        self._send(asks=False)
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._writer.wait_closed()

    def current(self) -> Counts:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.flush)
        return self._pending

    async def total(self) -> Counts:
        answer: asyncio.Future[Counts] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._send(asks=True)
        async with asyncio.timeout(self._timeout):
            return await answer

    @property
    def unsent(self) -> int:
        """Number of bytes that the parent has yet to read."""
        return self._writer.transport.get_write_buffer_size()

    def flush(self) -> None:
        """Send what was counted now, unless too much is unsent."""
        self._stop_timer()
        if self.unsent > _MAX_UNSENT:
            self.current()
        else:
            self._send(asks=False)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, *, asks: bool) -> None:
        counts, self._pending = self._pending, Counts()
        self._writer.write(_frame(_encode(_Report(counts, asks))))

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while frame := await _read(reader):
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_result(_decode_counts(frame))


class Total:
    """Sum of the counts of all workers, those that have exited included."""

    def __init__(self) -> None:
        self._counts = Counts()

    async def receive(self, channel: socket.socket) -> None:
        """Add what the worker at the other end of `channel` counts, until it has closed its end. Closes `channel`."""
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        try:
            while frame := await _read(reader):
                report = _decode_report(frame)
                self._counts.add(report.counts)
                if report.asks:
                    writer.write(_frame(_encode(self._counts)))
        finally:
            writer.close()


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH, "big") + data


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return the next message, or b"" at the end."""
    try:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(_LENGTH), "big"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
