"""Rendezvous hashing: a stable order of nodes for each key, without shared state."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from subnet.pool.policies.base import C


def rendezvous_order(key: bytes, candidates: Sequence[C]) -> list[C]:
    """Return `candidates` in an order that depends only on `key` and their peers.

    Every gateway computes the same order, and nodes that join or leave do not change the order of the others
    (https://en.wikipedia.org/wiki/Rendezvous_hashing).
    """
    key_digest = blake2b(key, digest_size=16).digest()
    return sorted(candidates, key=lambda remote: blake2b(key_digest + remote.peer.encode(), digest_size=8).digest())
