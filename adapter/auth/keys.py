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

    def check(self, authorization: str | None, *api_keys: str | None) -> int | None:
        """Check the `authorization` header, and headers that have just a key, all decoded as Latin-1; None: missing.

        One valid key among them is enough: clients that have a key of their own fill in a made-up one elsewhere.
        Returns the index of the valid key; None if no authentication is required. Raises InvalidApiKey. The time that a
        check takes reveals nothing about the keys.
        """
        if not self._digests:
            return None
        given = [key for key in (_bearer(authorization), *map(_stripped, api_keys)) if key]
        if not given:
            raise InvalidApiKey(_MISSING)
        valid = [index for key in given for index in self._find(key)]
        if not valid:
            raise InvalidApiKey(f"Incorrect API key provided: {_masked(given[0])}.")
        return valid[0]

    def _find(self, key: str) -> list[int]:
        digest = _digest(key.encode("latin-1"))
        return [index for index, known in enumerate(self._digests) if compare_digest(digest, known)]


def _bearer(authorization: str | None) -> str:
    scheme, _, key = _stripped(authorization).partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _stripped(value: str | None) -> str:
    return (value or "").strip()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _masked(key: str) -> str:
    return f"{key[:5]}***{key[-2:]}" if len(key) >= _MIN_LENGTH_TO_SHOW else "***"
