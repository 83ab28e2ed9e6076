"""Mutual authentication of gateways and nodes."""

from subnet.authorizers.base import AuthorizerBase
from subnet.authorizers.shared_secret import TokenAuthorizer

__all__ = ["AuthorizerBase", "TokenAuthorizer"]
