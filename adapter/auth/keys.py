"""Who may call: clients that bring one of the gateway's keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from hmac import compare_digest

from adapter.errors import BadKey

_MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
    " (i.e. Authorization: Bearer YOUR_KEY)."
)
# Of a shorter key nothing is repeated: what is shown of a mistyped one must not help to guess the right one.
_SHOWN_FROM = 20


class Keys:
    """Without any `keys` all are served."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, authorization: str | None) -> None:
        """`authorization` is the header of that name, read as Latin-1, None where there is none. Raises BadKey.

        How long it takes says nothing of the keys.
        """
        if not self._digests:
            return
        scheme, _, given = (authorization or "").strip().partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise BadKey(_MISSING)
        digest = _digest(given.encode("latin-1"))
        if not any([compare_digest(digest, known) for known in self._digests]):  # noqa: C419 all are compared
            raise BadKey(f"Incorrect API key provided: {_masked(given)}.")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _masked(key: str) -> str:
    return f"{key[:5]}***{key[-2:]}" if len(key) >= _SHOWN_FROM else "***"
