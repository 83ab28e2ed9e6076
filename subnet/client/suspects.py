"""Requests that are suspected of bringing down the nodes that they are sent to."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from subnet.errors import EngineFailed, NodeDied, NodeError, RepeatedFailure

# Nodes on which a request must have failed in a row.
_MAX_NODES = 2
# Time for which a failure is remembered, in seconds, and maximum number of requests.
_TTL = 60.0
_MAX_REQUESTS = 1024

_MESSAGE = (
    "The request failed on two nodes in a row, each time in the engine or with the node's process and before any new"
    " token. It is not sent to another node."
)


class SuspectRequests:
    """Failures of requests, by their digests. Shared by all sessions of a gateway.

    A request whose last attempts, on two different nodes, each ended in an engine error or with the death of the node's
    process, and without a new token, would bring down one node after the other. It is refused for a minute.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        # The oldest first.
        self._failures: dict[bytes, tuple[float, frozenset[str]]] = {}

    def __bool__(self) -> bool:
        """Return whether there may be any: most of the time no digest is needed."""
        return bool(self._failures)

    def check(self, digest: bytes) -> None:
        """Raise RepeatedFailure for a request that must not be sent to another node."""
        self._drop_expired()
        if len(self._failures.get(digest, _NOTHING)[1]) >= _MAX_NODES:
            raise RepeatedFailure(_MESSAGE)

    def record(self, digest: bytes, peer: str) -> None:
        """Record that an attempt on `peer` failed in a way that the request may have caused."""
        self._drop_expired()
        _, peers = self._failures.pop(digest, _NOTHING)
        self._failures[digest] = (self._clock() + _TTL, peers | {peer})
        if len(self._failures) > _MAX_REQUESTS:
            del self._failures[next(iter(self._failures))]

    def clear(self, digest: bytes) -> None:
        """Forget the failures of a request that has got a new token, or failed otherwise."""
        self._failures.pop(digest, None)

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._failures and self._failures[first := next(iter(self._failures))][0] <= now:
            del self._failures[first]


_NOTHING: tuple[float, frozenset[str]] = (0.0, frozenset())


def may_be_caused(error: NodeError) -> bool:
    """Return whether a request may have caused `error`: its engine failed, or its process ended."""
    return isinstance(error, EngineFailed | NodeDied)
