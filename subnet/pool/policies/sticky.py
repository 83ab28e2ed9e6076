"""What belongs together stays together."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.node import Remote
from subnet.pool.policies.base import Policy, Want
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.rendezvous import ranked


class Sticky(Policy):
    """Requests with the same key go to the same node for as long as it takes them, those without one as
    `otherwise` says.
    """

    def __init__(self, otherwise: Policy | None = None) -> None:
        self._otherwise = otherwise or LeastLoaded()

    def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
        if not want.key:
            return self._otherwise.choose(candidates, want)
        # A key is a client's, and what JSON allows need not be what UTF-8 does.
        return ranked(want.key.encode(errors="surrogatepass"), candidates)[0]
