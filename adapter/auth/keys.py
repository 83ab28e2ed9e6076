"""Authentication of clients by API key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from hmac import compare_digest

from adapter.errors import InvalidApiKey

_MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
    " (i.e. Authorization: Bearer YOUR_KEY)."
)
# Minimum length of a key to show its first and last characters in an error. Those of a shorter, mistyped key would help
# to guess the right one.
_MIN_LENGTH_TO_SHOW = 20


class ApiKeys:
    """API keys that the gateway accepts. Without any `keys`, no authentication is required."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, authorization: str | None) -> None:
        """Check the `authorization` header, decoded as Latin-1; None if it is missing.

        Raises InvalidApiKey. The time that a check takes reveals nothing about the keys.
        """
        if not self._digests:
            return
        scheme, _, given = (authorization or "").strip().partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise InvalidApiKey(_MISSING)
        digest = _digest(given.encode("latin-1"))
        if not any([compare_digest(digest, known) for known in self._digests]):  # noqa: C419 constant time
            raise InvalidApiKey(f"Incorrect API key provided: {_masked(given)}.")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _masked(key: str) -> str:
    return f"{key[:5]}***{key[-2:]}" if len(key) >= _MIN_LENGTH_TO_SHOW else "***"
