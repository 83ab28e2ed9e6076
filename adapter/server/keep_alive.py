"""Keep-alives for streamed responses that have nothing to send for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from adapter.server.response_writer import ResponseWriter


class KeepAlive:
    """Context in which `writer` is never silent for more than `interval` seconds: it then writes `part`, the first time
    together with the head of the response. Proxies and clients close connections that are silent for too long.

    `before_head` is called before the first `part` if the head was not sent yet. An `interval` of 0 means never. A
    client that does not read gets no keep-alives.

    A part of the response does not touch the timer. It runs twice per interval, and asks the writer for what has
    happened since.
    """

    __slots__ = ("_before_head", "_interval", "_part", "_timer", "_writer")

    def __init__(self, writer: ResponseWriter, part: bytes, interval: float, before_head: Callable[[], None]) -> None:
        self._writer = writer
        self._part = part
        self._interval = interval
        self._before_head = before_head
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._writer.was_silent()
        self._writer.keep_alive = self._part
        if self._interval:
            self._start_timer(self._interval)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.keep_alive = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self, delay: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay, self._check)

    def _check(self) -> None:
        if self._writer.was_silent():
            if not self._writer.started:
                self._before_head()
            self._writer.write(self._part)
        self._start_timer(self._interval / 2)
