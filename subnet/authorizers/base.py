"""The contract of an authorizer: both ends prove who they are, message by message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from subnet.messages import (
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
)

Response = InfoReply | EmbedReply | ScoreReply | Accepted
RequestT = TypeVar("RequestT", InfoRequest, ArtefactRequest, EmbedRequest, ScoreRequest, Generate)
ResponseT = TypeVar("ResponseT", InfoReply, EmbedReply, ScoreReply, Accepted)


class AuthorizerBase(ABC):
    """A client signs requests and validates responses; a node does the reverse.

    `call` is not part of what is signed: it numbers a message on its connection and is set after signing.
    """

    @abstractmethod
    async def sign_request(self, request: RequestT) -> RequestT:
        """The same request with `auth` set."""

    @abstractmethod
    async def validate_request(self, request: Request) -> None:
        """Raises Unauthorized when the request is not from someone allowed, is stale or was seen before."""

    @abstractmethod
    async def sign_response(self, response: ResponseT, request: Request) -> ResponseT:
        """The same response with `auth` set, bound to its request."""

    @abstractmethod
    async def validate_response(self, response: Response, request: Request) -> None:
        """Raises Unauthorized when the response is not the answer of an allowed node to this request."""
