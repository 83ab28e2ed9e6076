"""Which of the nodes that can, does: one small file each."""

from subnet.client.policies.base import Policy
from subnet.client.policies.round_robin import RoundRobin

__all__ = ["Policy", "RoundRobin"]
