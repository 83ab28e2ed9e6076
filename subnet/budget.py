"""Budgets of what clients share, such as memory and places in a queue: limited in all and for each client."""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar

from subnet.errors import ClientLimited, Overloaded

current_client: ContextVar[Hashable] = ContextVar("current_client", default=None)
"""Client for which the current task works; None: unknown. It is whatever tells clients apart, such as a key's digest.
Unknown clients have no share of their own, and are limited only in all."""

# Each refused request is asked back this number of seconds later than the one before, so that not all return at once.
_SPACING = 0.01

MAX_RETRY_AFTER = 60.0
"""Longest time in seconds after which a refused client is asked to return. OpenAI's clients ignore longer ones."""


class Budget:
    """Number of units of `what` that may be in use at once: `limit` in all, and the fraction `share` of it, at least
    one unit, for each client. Texts of errors begin with `what`, a plural.

    The time after which a refused client should return grows with the number of refusals, and shrinks as units are
    released.
    """

    def __init__(self, what: str, limit: int, share: float = 1.0) -> None:
        self.used = 0
        self._what = what
        self._limit = limit
        self._client_limit = max(1, int(limit * share))
        self._used_by: dict[Hashable, int] = {}
        self._refused = 0

    @property
    def is_full(self) -> bool:
        """True if no unit is left."""
        return self.used >= self._limit

    def limit_of(self, client: Hashable) -> int:
        """Return the number of units that `client` may have at once."""
        return self._limit if client is None else min(self._limit, self._client_limit)

    def has_used_share(self, client: Hashable) -> bool:
        """Return whether no unit of the share of `client` is left."""
        return client is not None and self._used_by.get(client, 0) >= self._client_limit

    def take(self, client: Hashable, units: int = 1, *, retry_after: float = 1.0) -> None:
        """Take units for `client`, which must release them again.

        Raises Overloaded if there are not enough in all, and ClientLimited if the client would have more than its
        share. They ask the client to return after `retry_after` seconds or later.
        """
        used = self._used_by.get(client, 0)
        if self.used + units > self._limit:
            raise Overloaded(
                f"{self._what} have reached the gateway's limit of {self._limit:,}.",
                retry_after=self._retry_after(retry_after),
            )
        if client is not None and used + units > self._client_limit:
            raise ClientLimited(
                f"{self._what} of this client have reached its limit of {self._client_limit:,}.",
                retry_after=self._retry_after(retry_after),
            )
        self.used += units
        self._used_by[client] = used + units

    def release(self, client: Hashable, units: int = 1) -> None:
        """Return units that `client` has taken."""
        self.used -= units
        left = self._used_by[client] - units
        if left:
            self._used_by[client] = left
        else:
            del self._used_by[client]
        self._refused = max(0, self._refused - 1) if self.used else 0

    def _retry_after(self, seconds: float) -> float:
        self._refused += 1
        return min(MAX_RETRY_AFTER, seconds + self._refused * _SPACING)
