"""The policy `prefix-affinity`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from subnet.pool.policies.base import C, Policy, RoutingHint
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.rendezvous import rendezvous_order
from subnet.tensors import TokenIds

# Size of a block, in tokens, in which prompts are compared, and the maximum number of blocks.
_MEMORY_BLOCK = 16
_MEMORY_BLOCKS = 512
_MAX_PREFIXES = 32_768


class PrefixAffinity(Policy):
    """Chooses the same node for prompts with the same prefix, whose KV cache is likely to hold that prefix.

    A prompt that continues an earlier one, as the next turn of a conversation does, goes to the node that was chosen
    for that one. For others the choice depends on the prefix alone, so that all gateways choose alike. If the node is
    overloaded, the next one in an order that depends on the prefix alone is chosen, so a popular prefix is cached by as
    many nodes as it needs. A node is overloaded if all its slots are in use, or if more than half of them and more than
    `load_factor` times the candidates' mean load are (compare bounded loads, https://arxiv.org/abs/1608.01350).

    The prefix consists of the first `max_blocks` complete blocks of `block_size` tokens. A prompt shorter than one
    block goes to the least loaded node.
    """

    def __init__(self, block_size: int = 16, max_blocks: int = 16, load_factor: float = 1.25) -> None:
        self._block_size = block_size
        self._max_blocks = max_blocks
        self._load_factor = load_factor
        self._fallback = LeastLoaded()
        self._memory = _PrefixMemory()

    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        digests = list(_digests(hint.prompt))
        chosen = self._choose(candidates, hint, self._memory.peer(digests))
        if digests:
            # Not its beginnings: they may be those of all conversations.
            self._memory.record(digests[-1], chosen.peer)
        return chosen

    def _choose(self, candidates: Sequence[C], hint: RoutingHint, known: str | None) -> C:
        prefix = self._prefix(hint.prompt)
        if not len(prefix):
            return self._fallback.choose(candidates, hint)
        max_load = max(0.5, self._load_factor * sum(remote.load for remote in candidates) / len(candidates))
        by_prefix = rendezvous_order(prefix.astype("<i4").tobytes(), candidates)
        for remote in sorted(by_prefix, key=lambda remote: remote.peer != known):
            if remote.load < 1 and remote.load <= max_load:
                return remote
        return self._fallback.choose(candidates, hint)

    def _prefix(self, prompt: TokenIds) -> TokenIds:
        return prompt[: min(len(prompt) // self._block_size, self._max_blocks) * self._block_size]


class _PrefixMemory:
    """The node that last got each of the latest prompts, by the digest of their whole blocks."""

    def __init__(self) -> None:
        self._peers: dict[bytes, str] = {}

    def peer(self, digests: Sequence[bytes]) -> str | None:
        """Return the node that got the longest known prompt that is a prefix of this one; `digests` are those of all
        its prefixes, shortest first.
        """
        return next((self._peers[digest] for digest in reversed(digests) if digest in self._peers), None)

    def record(self, digest: bytes, peer: str) -> None:
        self._peers.pop(digest, None)
        self._peers[digest] = peer
        if len(self._peers) > _MAX_PREFIXES:
            del self._peers[next(iter(self._peers))]


def _digests(prompt: TokenIds) -> Iterator[bytes]:
    """Yield the digest of each prefix of whole blocks, up to a limit."""
    digest = blake2b(digest_size=16)
    for number in range(min(len(prompt) // _MEMORY_BLOCK, _MEMORY_BLOCKS)):
        block = prompt[number * _MEMORY_BLOCK : (number + 1) * _MEMORY_BLOCK]
        digest.update(block.astype("<i4").tobytes())
        yield digest.digest()
