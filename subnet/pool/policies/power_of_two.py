"""The better of two."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from subnet.pool.node import Remote
from subnet.pool.policies.base import Policy, Want


class PowerOfTwo(Policy):
    """Takes the less loaded of two drawn at random.

    Nearly as even as the least loaded of all, and several gateways that know as much do not all run to the same
    node (https://www.eecs.harvard.edu/~michaelm/postscripts/mythesis.pdf).
    """

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()

    def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
        drawn = self._random.sample(candidates, min(2, len(candidates)))
        return min(drawn, key=lambda remote: remote.load)
