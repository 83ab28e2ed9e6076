"""The policy `power-of-two`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from subnet.pool.policies.base import C, Policy, RoutingHint


class PowerOfTwo(Policy):
    """Chooses the less loaded of two random candidates.

    The load is spread nearly as evenly as by LeastLoaded, and gateways with the same view of the nodes do not all send
    their requests to the same one (https://www.eecs.harvard.edu/~michaelm/postscripts/mythesis.pdf).
    """

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        sample = self._random.sample(candidates, min(2, len(candidates)))
        return min(sample, key=lambda remote: remote.load)
