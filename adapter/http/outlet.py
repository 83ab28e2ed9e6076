"""The socket of a connection."""

from __future__ import annotations

import os
from asyncio import Transport


class Outlet:
    """Writes straight to the socket of `transport`. What the socket does not take at once goes through the transport,
    which sends it later. Through the transport every write would cost twice as much: uvloop checks and queues a lot
    before it makes the same system call.

    `full`: the transport still has bytes to send, and everything must queue behind them. The protocol sets it in
    `pause_writing`; as the limit of the transport's buffer is 0, a single unsent byte is enough for that.
    """

    __slots__ = ("_fd", "_transport", "full")

    def __init__(self, transport: Transport) -> None:
        transport.set_write_buffer_limits(0)
        self.full = False
        self._transport = transport
        own = transport.get_extra_info("socket")
        # With TLS, or without a socket, only the transport can write.
        self._fd = -1 if own is None or transport.get_extra_info("sslcontext") is not None else own.fileno()

    def write(self, data: bytes) -> None:
        """All of it, sooner or later; nothing once it is closed."""
        if self.full or self._fd < 0:
            if not self._transport.is_closing():
                self._transport.write(data)
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Its protocol hears of the loss as of any other.
            self._transport.abort()
            return
        if sent == len(data):
            return
        if self._transport.is_closing():
            # It takes nothing any more: what would come after a hole must not go out, either.
            self.lost()
        else:
            self._transport.write(memoryview(data)[sent:])

    def close(self) -> None:
        """Once all that was written is sent."""
        self.lost()
        self._transport.close()

    def lost(self) -> None:
        """The transport closes, or is closed: there is no socket any more."""
        self._fd = -1
