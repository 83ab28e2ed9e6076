"""Routing policies by the values of the setting `policy`."""

from collections.abc import Callable, Mapping

from subnet.pool.policies import PolicyName
from subnet.pool.policies.base import Policy
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.power_of_two import PowerOfTwo
from subnet.pool.policies.prefix_affinity import PrefixAffinity
from subnet.pool.policies.round_robin import RoundRobin
from subnet.pool.policies.sticky import Sticky

POLICIES: Mapping[PolicyName, Callable[[], Policy]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "power-of-two": PowerOfTwo,
    "prefix-affinity": PrefixAffinity,
    "sticky": Sticky,
}
