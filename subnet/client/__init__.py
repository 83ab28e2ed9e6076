"""The client's side of the subnet: sessions over a live table of nodes."""

from subnet.client.limits import Limits
from subnet.client.remote_manager import RemoteManager
from subnet.client.session import Session
from subnet.client.session_manager import SessionManager

__all__ = ["Limits", "RemoteManager", "Session", "SessionManager"]
