"""A secret that gateways and nodes share, never sent: every message carries an HMAC-SHA256 (RFC 2104)."""

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
MAX_AGE = 60.0


class TokenAuthorizer(AuthorizerBase):
    """Signs messages with a shared secret. Accepts signatures that are at most MAX_AGE seconds old, each nonce once.

    `clock` returns seconds since the epoch; the clocks of both sides must agree within MAX_AGE.
    """

    def __init__(self, secret: str, *, clock: Callable[[], float] = time.time) -> None:
        if not secret:
            raise ValueError("the shared secret must not be empty")
        self._key = secret.encode()
        self._clock = clock
        self._seen: dict[bytes, float] = {}

    async def sign_request(self, request: RequestT) -> RequestT:
        return msgspec.structs.replace(request, auth=self._auth(request, b""))

    async def validate_request(self, request: Request) -> None:
        auth = self._validated(request, b"")
        if auth.nonce in self._seen:
            raise Unauthorized("replayed request: its nonce was already used")
        self._remember(auth)

    async def sign_response(self, response: ResponseT, request: Request) -> ResponseT:
        return msgspec.structs.replace(response, auth=self._auth(response, _nonce(request)))

    async def validate_response(self, response: Response, request: Request) -> None:
        self._validated(response, _nonce(request))

    def _auth(self, message: Request | Response, context: bytes) -> Auth:
        auth = Auth(scheme=SCHEME, nonce=secrets.token_bytes(16), time=self._clock(), signature=b"")
        return msgspec.structs.replace(auth, signature=self._signature(message, auth, context))

    def _validated(self, message: Request | Response, context: bytes) -> Auth:
        auth = message.auth
        if auth is None:
            raise Unauthorized("the message is not signed, but a shared secret is required")
        if auth.scheme != SCHEME or not hmac.compare_digest(self._signature(message, auth, context), auth.signature):
            raise Unauthorized("invalid signature: the shared secrets differ")
        if abs(self._clock() - auth.time) > MAX_AGE:
            raise Unauthorized(f"the signature is more than {MAX_AGE:.0f} s old, or the clocks differ")
        return auth

    def _signature(self, message: Request | Response, auth: Auth, context: bytes) -> bytes:
        unsigned = msgspec.structs.replace(message, call=0, auth=msgspec.structs.replace(auth, signature=b""))
        # Only what has crossed the wire once encodes the same on both ends: 0 for a float comes back as 0.0.
        canonical = frames.encode(frames.decode(frames.encode(unsigned)))
        return hmac.digest(self._key, context + canonical, "sha256")

    def _remember(self, auth: Auth) -> None:
        oldest = self._clock() - MAX_AGE
        while self._seen and (first := next(iter(self._seen))) and self._seen[first] < oldest - MAX_AGE:
            del self._seen[first]
        self._seen[auth.nonce] = self._clock()


def _nonce(request: Request) -> bytes:
    return request.auth.nonce if request.auth is not None else b""
