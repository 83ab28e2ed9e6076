"""Where the prompt's beginning is in the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from subnet.pool.node import Remote
from subnet.pool.policies.base import Policy, Want
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.rendezvous import ranked
from subnet.wire.tensors import TokenIds


class PrefixAffinity(Policy):
    """Prompts that begin with the same tokens go to the same node, unless it is overloaded: then to the next in an
    order that is theirs too, so that a much used beginning is kept by as many nodes as it needs.

    Compared are the first `blocks` blocks of `block` tokens, whole ones only; a prompt shorter than one block has
    nothing worth keeping, and goes to the least loaded. A node is overloaded when all its slots are taken, or more
    than half of them and more than `bound` times the mean of all candidates
    (compare bounded loads, https://arxiv.org/abs/1608.01350).
    """

    def __init__(self, block: int = 16, blocks: int = 16, bound: float = 1.25) -> None:
        self._block = block
        self._blocks = blocks
        self._bound = bound
        self._otherwise = LeastLoaded()

    def choose(self, candidates: Sequence[Remote], want: Want) -> Remote:
        prefix = self._prefix(want.prompt)
        if not len(prefix):
            return self._otherwise.choose(candidates, want)
        limit = max(0.5, self._bound * sum(remote.load for remote in candidates) / len(candidates))
        for remote in ranked(prefix.astype("<i4").tobytes(), candidates):
            if remote.load < 1 and remote.load <= limit:
                return remote
        return self._otherwise.choose(candidates, want)

    def _prefix(self, prompt: TokenIds) -> TokenIds:
        return prompt[: min(len(prompt) // self._block, self._blocks) * self._block]
