"""Which of the nodes that can, does: one small file each."""

from collections.abc import Callable, Mapping
from typing import Literal

from subnet.client.policies.base import Policy, Want
from subnet.client.policies.least_loaded import LeastLoaded
from subnet.client.policies.power_of_two import PowerOfTwo
from subnet.client.policies.prefix_affinity import PrefixAffinity
from subnet.client.policies.round_robin import RoundRobin
from subnet.client.policies.sticky import Sticky

PolicyName = Literal["round-robin", "least-loaded", "power-of-two", "prefix-affinity", "sticky"]
POLICIES: Mapping[PolicyName, Callable[[], Policy]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "power-of-two": PowerOfTwo,
    "prefix-affinity": PrefixAffinity,
    "sticky": Sticky,
}

__all__ = [
    "POLICIES",
    "LeastLoaded",
    "Policy",
    "PolicyName",
    "PowerOfTwo",
    "PrefixAffinity",
    "RoundRobin",
    "Sticky",
    "Want",
]
