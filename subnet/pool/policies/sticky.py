"""The policy `sticky`."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.rendezvous import rendezvous_order


class Sticky(Policy):
    """Chooses the same node for requests with the same key, as long as that node is available.

    `fallback` (default: LeastLoaded) chooses for requests without a key.
    """

    def __init__(self, fallback: Policy | None = None) -> None:
        self._fallback = fallback or LeastLoaded()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        if not hint.key:
            return self._fallback.choose(candidates, hint)
        # Clients may send a key with unpaired surrogates: valid in JSON, but not in UTF-8.
        return rendezvous_order(hint.key.encode(errors="surrogatepass"), candidates)[0]
