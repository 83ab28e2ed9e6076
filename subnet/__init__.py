"""A subnet of inference nodes: sessions that survive their nodes."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subnet.authorizers import AuthorizerBase, TokenAuthorizer
    from subnet.client.request_state import RequestState
    from subnet.client.session import Session
    from subnet.client.session_manager import SessionManager
    from subnet.client.timeouts import Limits
    from subnet.generation import Delta, Sampling
    from subnet.pool.manager import RemoteManager
    from subnet.protocols.mock import MockProtocol

__all__ = [
    "AuthorizerBase",
    "Delta",
    "Limits",
    "MockProtocol",
    "RemoteManager",
    "RequestState",
    "Sampling",
    "Session",
    "SessionManager",
    "TokenAuthorizer",
]

_HOMES = {
    "AuthorizerBase": "subnet.authorizers",
    "Delta": "subnet.generation",
    "Limits": "subnet.client.timeouts",
    "MockProtocol": "subnet.protocols.mock",
    "RemoteManager": "subnet.pool.manager",
    "RequestState": "subnet.client.request_state",
    "Sampling": "subnet.generation",
    "Session": "subnet.client.session",
    "SessionManager": "subnet.client.session_manager",
    "TokenAuthorizer": "subnet.authorizers",
}


def __getattr__(name: str) -> object:
    # Imported on first use: aiohttp and numpy take half a second, which `subnet --help` need not wait for.
    if name not in _HOMES:
        raise AttributeError(f"module 'subnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
