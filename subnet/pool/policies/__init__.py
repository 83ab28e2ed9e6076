"""Routing policies, one per module: each chooses one of the available nodes for a request."""

from typing import Literal

PolicyName = Literal["round-robin", "least-loaded", "power-of-two", "prefix-affinity", "sticky"]
"""Values of the setting `policy`. Defined apart from the policies, so that reading settings imports none of them."""
