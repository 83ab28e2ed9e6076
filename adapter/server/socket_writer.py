"""Write directly to the socket of a client connection."""

from __future__ import annotations

import os
from asyncio import Transport


class SocketWriter:
    """Writes directly to the socket of `transport`, and passes the transport only what the socket does not accept.
    Writing everything through the transport would cost twice as much: uvloop does a lot of checking and queueing before
    it makes the same system call.

    `paused`: the transport has unsent bytes, so everything must queue behind them. The protocol sets it in
    `pause_writing`. A single unsent byte is enough, as the transport's write buffer limit is 0.
    """

    __slots__ = ("_fd", "_transport", "paused")

    def __init__(self, transport: Transport) -> None:
        transport.set_write_buffer_limits(0)
        self.paused = False
        self._transport = transport
        sock = transport.get_extra_info("socket")
        # With TLS, or without a socket, only the transport can write.
        self._fd = -1 if sock is None or transport.get_extra_info("sslcontext") is not None else sock.fileno()

    def write(self, data: bytes) -> None:
        """Write all of `data`, now or as soon as the client reads. Does nothing after `close`."""
        if self.paused or self._fd < 0:
            if not self._transport.is_closing():
                self._transport.write(data)
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The protocol's connection_lost is called, as for any other lost connection.
            self._transport.abort()
            return
        if sent == len(data):
            return
        if self._transport.is_closing():
            # The transport drops the rest, so later data must not be sent either: the client would see a gap.
            self.detach()
        else:
            self._transport.write(memoryview(data)[sent:])

    def close(self) -> None:
        """Close the connection after everything written so far is sent."""
        self.detach()
        self._transport.close()

    def close_sending_side(self) -> bool:
        """Half-close the connection after everything written so far is sent; return False if that is not possible."""
        self.detach()
        if not self._transport.can_write_eof():
            return False
        self._transport.write_eof()
        return True

    def detach(self) -> None:
        """Stop using the file descriptor, as the transport is closing or closed."""
        self._fd = -1
