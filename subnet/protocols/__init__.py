"""Protocols, each of which connects a client to one node."""
