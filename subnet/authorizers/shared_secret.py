"""Authentication with a shared secret, which is never sent: each message carries an HMAC-SHA256 (RFC 2104)."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

import msgspec

from subnet.authorizers.base import AuthorizerBase, RequestT, Response, ResponseT
from subnet.errors import Unauthorized
from subnet.wire import frames
from subnet.wire.messages import Auth, Request

SCHEME = "hmac-sha256"
MAX_CLOCK_SKEW = 60.0
"""Default of the maximum difference between the clocks of both sides, in seconds."""


class TokenAuthorizer(AuthorizerBase):
    """Authorizer that signs messages with a shared secret.

    Accepts signatures that are at most `max_clock_skew` seconds old or in the future, and each nonce of a request once.
    `clock` returns seconds since the Unix epoch. Raises ValueError for an empty secret.
    """

    def __init__(
        self, secret: str, *, max_clock_skew: float = MAX_CLOCK_SKEW, clock: Callable[[], float] = time.time
    ) -> None:
        if not secret:
            raise ValueError("the shared secret must not be empty")
        self._key = secret.encode()
        self._max_clock_skew = max_clock_skew
        self._clock = clock
        self._nonces: dict[bytes, float] = {}

    async def sign_request(self, request: RequestT) -> RequestT:
        return msgspec.structs.replace(request, auth=self._auth(request, b""))

    async def validate_request(self, request: Request) -> None:
        auth = self._validate(request, b"")
        if auth.nonce in self._nonces:
            raise Unauthorized("replayed request: its nonce was already used")
        self._remember_nonce(auth)

    async def sign_response(self, response: ResponseT, request: Request) -> ResponseT:
        return msgspec.structs.replace(response, auth=self._auth(response, _nonce(request)))

    async def validate_response(self, response: Response, request: Request) -> None:
        self._validate(response, _nonce(request))

    def _auth(self, message: Request | Response, context: bytes) -> Auth:
        auth = Auth(scheme=SCHEME, nonce=secrets.token_bytes(16), time=self._clock(), signature=b"")
        return msgspec.structs.replace(auth, signature=self._signature(message, auth, context))

    def _validate(self, message: Request | Response, context: bytes) -> Auth:
        auth = message.auth
        if auth is None:
            raise Unauthorized("the message is not signed, but a shared secret is required")
        if auth.scheme != SCHEME or not hmac.compare_digest(self._signature(message, auth, context), auth.signature):
            raise Unauthorized("invalid signature: the shared secrets differ")
        skew = abs(self._clock() - auth.time)
        if not skew <= self._max_clock_skew:
            maximum = f"{self._max_clock_skew:g} s (max_clock_skew)"
            raise Unauthorized(f"the clocks differ by {skew:.0f} s, more than the maximum of {maximum}")
        return auth

    def _signature(self, message: Request | Response, auth: Auth, context: bytes) -> bytes:
        unsigned = msgspec.structs.replace(message, call=0, auth=msgspec.structs.replace(auth, signature=b""))
        # Decoding and encoding again makes both ends sign the same bytes: 0 in a float field is decoded as 0.0.
        canonical = frames.encode(frames.decode(frames.encode(unsigned)))
        return hmac.digest(self._key, context + canonical, "sha256")

    def _remember_nonce(self, auth: Auth) -> None:
        # A signature from the future is accepted, so it can be replayed for twice that time.
        expired = self._clock() - 2 * self._max_clock_skew
        while self._nonces and (first := next(iter(self._nonces))) and self._nonces[first] < expired:
            del self._nonces[first]
        self._nonces[auth.nonce] = self._clock()


def _nonce(request: Request) -> bytes:
    return request.auth.nonce if request.auth is not None else b""
