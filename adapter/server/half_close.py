"""Tell clients that only stopped sending from clients that left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

# State of a connection that was reset; see tcp_states.h of Linux.
_TCP_CLOSE = 7
# Seconds between checks of a connection: at first the time that a reset takes, doubled each time.
_FIRST_CHECK, _MAX_CHECK = 0.05, 1.0
# Seconds without an answer until the kernel sends a probe, seconds between probes, and their number.
_PROBE_OPTIONS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}


def can_watch(transport: asyncio.Transport) -> bool:
    """Return whether a HalfClosed can watch the connection: only on Linux, and not with TLS."""
    sock = transport.get_extra_info("socket")
    is_tcp = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
    return is_tcp and hasattr(socket, "TCP_INFO") and transport.get_extra_info("sslcontext") is None


class HalfClosed:
    """Watches a connection whose client stopped sending, and aborts it once the client has closed it altogether.

    Both look the same at first: the client has sent a FIN. The difference is what happens to data that it is sent: one
    that still reads acknowledges it, one that has left answers with a reset. So `probe` sends some, unless the response
    is complete before; it returns False if there is nothing that it may send yet. Later, when there may be nothing to
    send, the kernel sends probes. They show within about a minute that a client has left: until then the kernel of the
    client acknowledges them, as its end of the connection is in the state FIN_WAIT2.
    """

    def __init__(self, transport: asyncio.Transport, probe: Callable[[], bool]) -> None:
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._probe = probe
        self._probed = False
        self._timer: asyncio.TimerHandle | None = None
        self._set_options()
        self._start_timer(_FIRST_CHECK)

    def stop(self) -> None:
        """Stop watching, as the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_options(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBE_OPTIONS.items():
            self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def _start_timer(self, delay: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay, self._check, delay)

    def _check(self, delay: float) -> None:
        if self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            self._transport.abort()
            return
        self._probed = self._probed or self._probe()
        self._start_timer(min(2 * delay, _MAX_CHECK))
