"""A subnet of inference nodes: sessions that survive their nodes."""

from subnet.authorizers import AuthorizerBase, TokenAuthorizer
from subnet.client import Limits, RemoteManager, Session, SessionManager
from subnet.generation import Delta, Sampling
from subnet.protocols.mock import MockProtocol

__all__ = [
    "AuthorizerBase",
    "Delta",
    "Limits",
    "MockProtocol",
    "RemoteManager",
    "Sampling",
    "Session",
    "SessionManager",
    "TokenAuthorizer",
]
