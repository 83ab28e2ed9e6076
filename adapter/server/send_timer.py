"""Disconnect clients that do not read."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle, Transport

# Bytes that a client must read per timeout, unless fewer are unsent.
_MIN_PROGRESS = 64 * 1024


class SendTimer:
    """Aborts the connection of `transport` if, between `start` and `cancel`, its client reads less than 64 KiB in
    `timeout` seconds.
    """

    __slots__ = ("_loop", "_timeout", "_timer", "_transport")

    def __init__(self, loop: AbstractEventLoop, transport: Transport, timeout: float) -> None:
        self._loop = loop
        self._transport = transport
        self._timeout = timeout
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        """Start the timer, as data is unsent."""
        self._start(self._transport.get_write_buffer_size())

    def cancel(self) -> None:
        """Cancel the timer, as everything is sent or the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, unsent: int) -> None:
        self._timer = self._loop.call_later(self._timeout, self._check_progress, unsent)

    def _check_progress(self, unsent_before: int) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent > unsent_before - _MIN_PROGRESS:
            self._transport.abort()
        else:
            self._start(unsent)
