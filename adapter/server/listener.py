"""Accept connections promptly, even while the event loop is busy."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

# Limit per event loop iteration, so that running streams are not held up.
_MAX_ACCEPTS = 256
# Seconds until the next attempt when the process has no file descriptors left.
_RETRY_DELAY = 0.5


class Listener:
    """Accepts the connections of `listening`, a listening socket, on the running event loop.

    asyncio's own servers accept one connection per loop iteration when they run on libuv. With thousands of streams an
    iteration takes a fifth of a second, and the kernel drops connections that exceed the socket's backlog.
    """

    def __init__(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._retry: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()

    def start(self, make_protocol: ProtocolFactory) -> None:
        """Accept connections from now on, each with a protocol of its own."""
        self._loop.add_reader(self._listening, self._accept, make_protocol)

    def stop(self) -> None:
        """Stop accepting and close the socket. The kernel refuses connections that are still in the backlog."""
        self._loop.remove_reader(self._listening)
        if self._retry is not None:
            self._retry.cancel()
        self._listening.close()

    def _accept(self, make_protocol: ProtocolFactory) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                logger.error("cannot accept connections: %s", error)
                self._loop.remove_reader(self._listening)
                self._retry = self._loop.call_later(_RETRY_DELAY, self.start, make_protocol)
                return
            task = self._loop.create_task(self._loop.connect_accepted_socket(make_protocol, connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
