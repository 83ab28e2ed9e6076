"""Interface of an authorizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from subnet.wire.messages import (
    Accepted,
    ArtefactRequest,
    EmbedReply,
    EmbedRequest,
    Generate,
    InfoReply,
    InfoRequest,
    Request,
    ScoreReply,
    ScoreRequest,
    TokenizeReply,
    TokenizeRequest,
)

Response = InfoReply | EmbedReply | ScoreReply | TokenizeReply | Accepted
RequestT = TypeVar("RequestT", InfoRequest, ArtefactRequest, EmbedRequest, ScoreRequest, TokenizeRequest, Generate)
ResponseT = TypeVar("ResponseT", InfoReply, EmbedReply, ScoreReply, TokenizeReply, Accepted)


class AuthorizerBase(ABC):
    """Mutual authentication, message by message: a client signs requests and validates responses, a node validates
    requests and signs responses.

    Signatures do not cover the call number `call`, which is set after signing.
    """

    @abstractmethod
    async def sign_request(self, request: RequestT) -> RequestT:
        """Return the request with `auth` set."""

    @abstractmethod
    async def validate_request(self, request: Request) -> None:
        """Raise Unauthorized if the request is not authentic, is too old, or is a replay."""

    @abstractmethod
    async def sign_response(self, response: ResponseT, request: Request) -> ResponseT:
        """Return the response with `auth` set, bound to its request."""

    @abstractmethod
    async def validate_response(self, response: Response, request: Request) -> None:
        """Raise Unauthorized if the response is not an authentic response to this request."""
