"""The policy `power-of-two`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from subnet.pool.policies.base import C, Policy, RoutingHint


class PowerOfTwo(Policy):
    """Chooses the less loaded of two random candidates; weights scale both the chance to be drawn and the load.

    The load is spread nearly as evenly as by LeastLoaded, and gateways with the same view of the nodes do not all send
    their requests to the same one (https://www.eecs.harvard.edu/~michaelm/postscripts/mythesis.pdf).
    """

    uses_weights = True

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        first = self._draw(candidates)
        others = [remote for remote in candidates if remote is not first]
        sample = [first, self._draw(others)] if others else [first]
        return min(sample, key=lambda remote: remote.load / remote.weight)

    def _draw(self, candidates: Sequence[C]) -> C:
        return self._random.choices(candidates, [remote.weight for remote in candidates])[0]
