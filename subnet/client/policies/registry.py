"""Routing policies by the name that the setting `policy` gives them."""

from collections.abc import Callable, Mapping

from subnet.client.policies import PolicyName
from subnet.client.policies.base import Policy
from subnet.client.policies.least_loaded import LeastLoaded
from subnet.client.policies.power_of_two import PowerOfTwo
from subnet.client.policies.prefix_affinity import PrefixAffinity
from subnet.client.policies.round_robin import RoundRobin
from subnet.client.policies.sticky import Sticky

POLICIES: Mapping[PolicyName, Callable[[], Policy]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "power-of-two": PowerOfTwo,
    "prefix-affinity": PrefixAffinity,
    "sticky": Sticky,
}
