"""Interface of a routing policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

import msgspec
import numpy as np

from subnet.tensors import TokenIds, token_ids

MAX_TEXT_HINT = 4096
"""Bytes of a text that policies compare."""


class RoutingHint(msgspec.Struct, frozen=True, eq=False):
    """Properties of a request that are known before a node is chosen.

    `prompt` are its token ids (one-dimensional), or the first of them if `size`, the length of all, is larger. `key` is
    the client's routing key: requests with the same key belong together and should go to the same node.
    """

    prompt: TokenIds = msgspec.field(default_factory=lambda: token_ids([]))
    key: str | None = None
    size: int = 0

    @classmethod
    def of_text(cls, text: bytes, key: str | None = None, size: int | None = None) -> RoutingHint:
        """Return the hint for a prompt whose tokens are not known: its bytes take their place. `size` is the length of
        all if `text` is its beginning.
        """
        hint = np.frombuffer(text[:MAX_TEXT_HINT], np.uint8).astype(np.int32)
        return cls(hint, key, len(text) if size is None else size)


class Candidate(Protocol):
    """A node that could take a request: its address, its `weight` (above 0) and the share of its slots in use (1.0:
    all).
    """

    peer: str
    weight: float

    @property
    def load(self) -> float: ...


C = TypeVar("C", bound=Candidate)


class Policy(ABC):
    """Strategy that chooses one of the available nodes. Synchronous, without I/O.

    `uses_weights`: the candidates' weights scale their shares of the requests; otherwise they have no effect.
    """

    uses_weights: ClassVar[bool] = False

    @abstractmethod
    def choose(self, candidates: Sequence[C], hint: RoutingHint) -> C:
        """Return one of `candidates`, which is not empty and in the order of the node table."""
