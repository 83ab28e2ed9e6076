"""Attempts of a session: each uses one node."""
