"""The same node for the same key, without any memory."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from subnet.pool.node import Remote


def ranked(key: bytes, candidates: Sequence[Remote]) -> list[Remote]:
    """`candidates` in an order that is the key's own: every gateway finds the same, and when a node joins or leaves
    the others keep theirs (rendezvous hashing, https://en.wikipedia.org/wiki/Rendezvous_hashing).
    """
    short = blake2b(key, digest_size=16).digest()
    return sorted(candidates, key=lambda remote: blake2b(short + remote.peer.encode(), digest_size=8).digest())
