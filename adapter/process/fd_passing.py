"""Passing of accepted connections to another process, as file descriptors over a pair of Unix sockets.

The sender sends one message per connection, with its descriptor. The receiver answers with the total number of
connections that have been closed, so that the sender knows how many are open.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

_MAX_MESSAGE = 1 << 16
# Limit per event loop iteration, so that running streams are not held up.
_MAX_RECEIVED = 256

ProtocolFactory = Callable[[], asyncio.Protocol]


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return the sender's and the receiver's end of a channel that preserves message boundaries. Reading returns b""
    when the other end is closed.
    """
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sender.setblocking(False)
    return sender, receiver


class FdSender:
    """Sends connections over `channel`, and counts those that the receiver has not closed."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sent = 0
        self._closed = 0

    @property
    def open_connections(self) -> int:
        return self._sent - self._closed

    def send(self, connection: socket.socket) -> bool:
        """Send a duplicate of `connection`. Returns False if the receiver is gone or its queue is full."""
        try:
            socket.send_fds(self._channel, [b"c"], [connection.fileno()])
        except OSError:
            return False
        self._sent += 1
        return True

    async def receive_reports(self) -> None:
        """Read the receiver's reports of closed connections until its end of the channel is closed."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while report := await loop.sock_recv(self._channel, _MAX_MESSAGE):
                self._closed = int(report)


class FdReceiver:
    """Receives connections from `channel`, whose other end belongs to an FdSender."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._closed = 0
        self._connecting: set[asyncio.Task[object]] = set()

    def start(self, make_protocol: ProtocolFactory, on_end: Callable[[], None]) -> None:
        """Serve each connection with a protocol of its own. Calls `on_end` when the sender is gone."""
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._receive, make_protocol, on_end)

    def report_closed(self) -> None:
        """Report to the sender that one more connection was closed."""
        self._closed += 1
        # The report is a total: if this one is lost, the next one makes up for it.
        with suppress(OSError):
            self._channel.send(b"%d" % self._closed)

    def _receive(self, make_protocol: ProtocolFactory, on_end: Callable[[], None]) -> None:
        for _ in range(_MAX_RECEIVED):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
            except BlockingIOError:
                break
            except OSError:
                message, descriptors = b"", []
            if not message:
                asyncio.get_running_loop().remove_reader(self._channel)
                on_end()
                break
            self._connect(descriptors, make_protocol)

    def _connect(self, descriptors: Sequence[int], make_protocol: ProtocolFactory) -> None:
        loop = asyncio.get_running_loop()
        if not descriptors:
            # This process has no file descriptors left, and the kernel has closed the connection.
            self.report_closed()
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(make_protocol, connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
