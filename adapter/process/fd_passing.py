"""How a process hands connections to another: over a pair of sockets, each connection as its file descriptor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

_LARGEST = 1 << 16
# New connections in a turn of the event loop, which takes long where there are many streams.
_AT_ONCE = 256

MakeProtocol = Callable[[], asyncio.Protocol]


def pair() -> tuple[socket.socket, socket.socket]:
    """The giver's end and the taker's. Messages keep their bounds; b"" is read when the other end is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


class Giver:
    """Gives connections over `channel`; `open` are those that the taker has not said to be over."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._given = 0
        self._over = 0

    @property
    def open(self) -> int:
        return self._given - self._over

    def give(self, connection: socket.socket) -> bool:
        """Give away a copy, unless the taker is gone or has too many to fetch."""
        try:
            socket.send_fds(self._channel, [b"c"], [connection.fileno()])
        except OSError:
            return False
        self._given += 1
        return True

    async def hear(self) -> None:
        """Take in what the taker says, until it is gone."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while said := await loop.sock_recv(self._channel, _LARGEST):
                self._over = int(said)


class Taker:
    """Takes connections from `channel`, whose other end is a Giver."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._over = 0
        self._taking: set[asyncio.Task[object]] = set()

    def start(self, make_protocol: MakeProtocol, on_end: Callable[[], None]) -> None:
        """From now on, serve each connection with a protocol of its own; `on_end` is called when the giver is gone."""
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._take, make_protocol, on_end)

    def over(self) -> None:
        """Tell the giver that a connection is over."""
        self._over += 1
        # All are counted in the next one, should this not get through.
        with suppress(OSError):
            self._channel.send(b"%d" % self._over)

    def _take(self, make_protocol: MakeProtocol, on_end: Callable[[], None]) -> None:
        for _ in range(_AT_ONCE):
            try:
                said, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
            except BlockingIOError:
                break
            except OSError:
                said, descriptors = b"", []
            if not said:
                asyncio.get_running_loop().remove_reader(self._channel)
                on_end()
                break
            self._serve(descriptors, make_protocol)

    def _serve(self, descriptors: Sequence[int], make_protocol: MakeProtocol) -> None:
        loop = asyncio.get_running_loop()
        if not descriptors:
            # The process has no more of them: the connection is closed already.
            self.over()
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(make_protocol, connection))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)
