"""Authentication with a shared secret, which is never sent: each message carries an HMAC-SHA256 (RFC 2104)."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

import msgspec

from subnet.authorizers.base import AuthorizerBase
from subnet.errors import NodeBusy, Unauthorized
from subnet.wire.messages import Auth

SCHEME = "hmac-sha256"
MAX_CLOCK_SKEW = 60.0
"""Default of the maximum difference between the clocks of both sides, in seconds."""
MAX_NONCES = 131_072
"""Maximum number of nonces that a node remembers: about 20 MB, and 1,000 requests per second with the default skew."""


class TokenAuthorizer(AuthorizerBase):
    """Authorizer that signs messages with a shared secret.

    Accepts signatures that are at most `max_clock_skew` seconds old or in the future, and each nonce of a request once.
    With `max_nonces` remembered, it refuses further requests with NodeBusy until the oldest has expired: to forget one
    earlier would let its request be replayed. `clock` returns seconds since the Unix epoch. Raises ValueError for an
    empty secret.
    """

    def __init__(
        self,
        secret: str,
        *,
        max_clock_skew: float = MAX_CLOCK_SKEW,
        max_nonces: int = MAX_NONCES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secret:
            raise ValueError("the shared secret must not be empty")
        self._key = secret.encode()
        self._max_clock_skew = max_clock_skew
        self._max_nonces = max_nonces
        self._clock = clock
        # With the time at which each was received, the oldest first.
        self._nonces: dict[bytes, float] = {}

    async def sign_request(self, content: bytes, node: str) -> Auth:
        return self._sign(content, node, None)

    async def validate_request(self, content: bytes, auth: Auth) -> None:
        self._validate(content, auth, None)
        self._forget_expired()
        if auth.nonce in self._nonces:
            raise Unauthorized("replayed request: its nonce was already used")
        if len(self._nonces) >= self._max_nonces:
            raise NodeBusy(
                f"the maximum of signed requests within {2 * self._max_clock_skew:g} s is reached", retry_after=1.0
            )
        self._nonces[auth.nonce] = self._clock()

    async def sign_response(self, content: bytes, request: Auth) -> Auth:
        return self._sign(content, "", request)

    async def validate_response(self, content: bytes, auth: Auth, request: Auth) -> None:
        self._validate(content, auth, request)

    def _sign(self, content: bytes, node: str, request: Auth | None) -> Auth:
        auth = Auth(scheme=SCHEME, node=node, nonce=secrets.token_bytes(16), time=self._clock(), signature=b"")
        return msgspec.structs.replace(auth, signature=self._signature(content, auth, request))

    def _validate(self, content: bytes, auth: Auth, request: Auth | None) -> None:
        if auth.scheme != SCHEME or not hmac.compare_digest(self._signature(content, auth, request), auth.signature):
            raise Unauthorized("invalid signature: the shared secrets differ")
        skew = abs(self._clock() - auth.time)
        if not skew <= self._max_clock_skew:
            maximum = f"{self._max_clock_skew:g} s (max_clock_skew)"
            raise Unauthorized(f"the clocks differ by {skew:.0f} s, more than the maximum of {maximum}")

    def _signature(self, content: bytes, auth: Auth, request: Auth | None) -> bytes:
        """Return the MAC of everything but the signature itself. A response also names the nonce of its `request`."""
        kind, nonce = ("request", b"") if request is None else ("response", request.nonce)
        # An array in MessagePack says where it ends, so that no two messages give the same bytes.
        head = msgspec.msgpack.encode((kind, nonce, auth.scheme, auth.node, auth.nonce, auth.time))
        return hmac.digest(self._key, head + content, "sha256")

    def _forget_expired(self) -> None:
        # A signature from the future is accepted, so it can be replayed for twice that time.
        expired = self._clock() - 2 * self._max_clock_skew
        while self._nonces and self._nonces[first := next(iter(self._nonces))] < expired:
            del self._nonces[first]
