"""Connections that wait at a socket are taken in, also while the event loop has much to do."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

MakeProtocol = Callable[[], asyncio.BaseProtocol]

# New connections in a turn of the event loop: it must come to an end, for the streams' sake.
_AT_ONCE = 256
# Without a descriptor for one more connection, they are not looked for so long, in seconds.
_PAUSE = 0.5


class Listener:
    """Accepts at `listening`, for the running event loop.

    asyncio's servers do it, too, but over libuv they take in one connection a turn: with thousands of streams a turn
    takes a fifth of a second, and of all others the kernel closes those that the queue of the socket has no room for.
    """

    def __init__(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._pause: asyncio.TimerHandle | None = None
        self._taking: set[asyncio.Task[object]] = set()

    def start(self, make_protocol: MakeProtocol) -> None:
        """From now on, serve each connection with a protocol of its own."""
        self._loop.add_reader(self._listening, self._accept, make_protocol)

    def stop(self) -> None:
        """Take in no more, and close the socket: who waits there is turned away."""
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()
        self._listening.close()

    def _accept(self, make_protocol: MakeProtocol) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                logger.error("cannot accept connections: %s", error)
                self._loop.remove_reader(self._listening)
                self._pause = self._loop.call_later(_PAUSE, self.start, make_protocol)
                return
            task = self._loop.create_task(self._loop.connect_accepted_socket(make_protocol, connection))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)
