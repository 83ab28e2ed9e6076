"""Interface of an authorizer."""

from __future__ import annotations

from abc import ABC, abstractmethod

from subnet.wire.messages import Auth


class AuthorizerBase(ABC):
    """Mutual authentication, message by message: a client signs requests and validates responses, a node validates
    requests and signs responses.

    `content` are the bytes of a message as they are sent. They are decoded only after they were validated.
    """

    @abstractmethod
    async def sign_request(self, content: bytes, node: str) -> Auth:
        """Return the signature of a request to the node whose id is `node`, with that as its `node`."""

    @abstractmethod
    async def validate_request(self, content: bytes, auth: Auth) -> None:
        """Raise Unauthorized if the request is not authentic, is too old, or is a replay.

        The signature must cover `auth.node`; the caller compares it with the id of the node.
        """

    @abstractmethod
    async def sign_response(self, content: bytes, request: Auth) -> Auth:
        """Return the signature of a response to the request that was signed with `request`, bound to it."""

    @abstractmethod
    async def validate_response(self, content: bytes, auth: Auth, request: Auth) -> None:
        """Raise Unauthorized if this is not an authentic response to the request that was signed with `request`."""
