"""Routing policies: how one of the available nodes is chosen for a request. One small file each."""

from typing import Literal

PolicyName = Literal["round-robin", "least-loaded", "power-of-two", "prefix-affinity", "sticky"]
"""Here, apart from the policies themselves, so that reading settings imports none of them."""
