"""The policy `prefix-affinity`."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.rendezvous import rendezvous_order
from subnet.tensors import TokenIds


class PrefixAffinity(Policy):
    """Chooses the same node for prompts with the same prefix, whose KV cache is likely to hold that prefix.

    If the node is overloaded, the next node in an order that depends on the prefix alone is chosen, so a popular prefix
    is cached by as many nodes as it needs. A node is overloaded if all its slots are in use, or if more than half of
    them and more than `load_factor` times the candidates' mean load are
    (compare bounded loads, https://arxiv.org/abs/1608.01350).

    The prefix consists of the first `max_blocks` complete blocks of `block_size` tokens. A prompt shorter than one
    block goes to the least loaded node.
    """

    def __init__(self, block_size: int = 16, max_blocks: int = 16, load_factor: float = 1.25) -> None:
        self._block_size = block_size
        self._max_blocks = max_blocks
        self._load_factor = load_factor
        self._fallback = LeastLoaded()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        prefix = self._prefix(hint.prompt)
        if not len(prefix):
            return self._fallback.choose(candidates, hint)
        max_load = max(0.5, self._load_factor * sum(remote.load for remote in candidates) / len(candidates))
        for remote in rendezvous_order(prefix.astype("<i4").tobytes(), candidates):
            if remote.load < 1 and remote.load <= max_load:
                return remote
        return self._fallback.choose(candidates, hint)

    def _prefix(self, prompt: TokenIds) -> TokenIds:
        return prompt[: min(len(prompt) // self._block_size, self._max_blocks) * self._block_size]
