"""Open connections of a server, and the limits of what each of them may send."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol

import msgspec

from subnet.budget import Budget

logger = logging.getLogger(__name__)

_MAX_DEFAULT = 16384
"""Default maximum number of connections where the process may open any number of files."""

# Beyond the maximum, refused connections that are kept open for a moment, to respond to their first request.
_MAX_REFUSED = 128


class HttpLimits(msgspec.Struct, frozen=True):
    """Limits of a request.

    `max_head` is the maximum size in bytes of its head (URL and headers), and of the trailers and chunk extensions of
    its body, on top of the first KiB. `max_fields` is the maximum number of its header fields, trailers included.
    """

    max_head: int = 64 * 1024
    max_fields: int = 100


_DEFAULT_LIMITS = HttpLimits()


class Connection(Protocol):
    """Connection of a client."""

    def drop(self) -> None:
        """Close the connection after everything written so far is sent."""


def _unknown(address: str) -> Hashable:
    return None


class Connections:
    """Open connections of one server; each takes a unit of `budget` (None: no limit) for the client that `client_at`
    returns for its address. `limits` are those of all requests on them.

    If no unit is left, a new connection replaces the one that has been idle for the longest time: one that waits for a
    request, or for the rest of a request's head. So neither clients that keep connections open nor those that send
    nothing keep others out. If the share of its client is used up, it replaces one of the client's own that has had a
    request: those that have not are about to send one, as clients open many at once.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        client_at: Callable[[str], Hashable] = _unknown,
        limits: HttpLimits = _DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        self._budget = budget
        self._client_at = client_at
        self._open: dict[Connection, Hashable] = {}
        self._idle: dict[Connection, None] = {}
        self._idle_of: dict[Hashable, dict[Connection, None]] = {}
        self._refused: set[Connection] = set()
        self._is_refusing = False

    def open(self, connection: Connection, address: str) -> None:
        """Add a connection from `address`, which is idle at first. Raises Overloaded and ClientLimited."""
        client = self._client_at(address)
        if self._budget is not None:
            if self._budget.has_used_share(client):
                self._make_room(self._idle_of.get(client, {}))
            elif self._budget.is_full:
                self._make_room(self._idle)
            self._budget.take(client)
        self._open[connection] = client
        self._idle[connection] = None

    def refuse(self, connection: Connection) -> bool:
        """Add a connection that was refused, until it gets a response. Returns False if there are too many of them."""
        if len(self._refused) >= _MAX_REFUSED:
            return False
        self._refused.add(connection)
        return True

    def mark_busy(self, connection: Connection) -> None:
        """Record that the head of a request was received."""
        if connection in self._idle:
            del self._idle[connection]
            client = self._open[connection]
            own = self._idle_of.get(client, {})
            own.pop(connection, None)
            if not own:
                self._idle_of.pop(client, None)

    def mark_idle(self, connection: Connection) -> None:
        """Record that a connection waits for a request."""
        if connection in self._open:
            self._idle[connection] = None
            self._idle_of.setdefault(self._open[connection], {})[connection] = None

    def closed(self, connection: Connection) -> None:
        """Remove a connection. Does nothing if it was removed already."""
        self._refused.discard(connection)
        self.mark_busy(connection)
        if connection in self._open:
            self._is_refusing = False
            client = self._open.pop(connection)
            if self._budget is not None:
                self._budget.release(client)

    def _make_room(self, idle: Iterable[Connection]) -> None:
        """Close the first of the `idle` connections, if there is one."""
        connection = next(iter(idle), None)
        if connection is not None:
            self.closed(connection)
            connection.drop()
        elif idle is self._idle and not self._is_refusing:
            logger.warning("all %d connections have running requests; new ones are refused", len(self._open))
            self._is_refusing = True


def default_max_connections() -> int:
    """Return three quarters of the number of files that this process may open: the rest is for connections to nodes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_DEFAULT if limit == resource.RLIM_INFINITY else max(1, min(_MAX_DEFAULT, limit * 3 // 4))
