"""How an engine's server names what a request asks for: one table per engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

from subnet.generation import Sampling


def _same(value: Any) -> Any:
    return value


class Parameter(NamedTuple):
    """A field of Sampling, the server's name of it, and how the server writes its value."""

    ours: str
    theirs: str
    write: Callable[[Any], Any] = _same


def written(table: Iterable[Parameter], sampling: Sampling) -> dict[str, Any]:
    """All of a table, whether asked for or not: a server's own default must not step in."""
    return {each.theirs: each.write(getattr(sampling, each.ours)) for each in table}


def above_zero(share: float) -> float:
    """For servers that refuse a top_p of 0: so little that one token is left."""
    return max(share, 1e-6)


def seed_of(seed: int | None, choice: int, position: int = 0, bits: int = 63) -> int:
    """A seed of so many bits for the draws of a choice from a position on: the same for the same, and else another."""
    text = f"{seed or 0} {choice} {position}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest()) >> (64 - bits)
