"""What a session has been promised and given. It lives above the nodes, so a switch changes nothing in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from subnet.chat import ChatDelta
from subnet.errors import WireError
from subnet.generation import Delta
from subnet.node_info import Lane
from subnet.pool.policies.base import RoutingHint

D = TypeVar("D", bound=Delta | ChatDelta)
E = TypeVar("E", bound=Delta | ChatDelta, contravariant=True)
Take = Callable[[D], None]


class Choice(Protocol[E]):
    """One of the answers, and whether it is complete."""

    index: int
    finished: bool

    def add(self, delta: E) -> None:
        """Raises WireError for what no honest node sends, of a choice that is not complete."""


class Ledger(ABC, Generic[D]):
    """Of one answer, with all its choices, on either lane.

    `peers` are the addresses of the nodes asked, in order, `nodes` their names. `size` is the prompt's, in tokens.
    `diverged` tells that a replay gave something else. `want` is what a policy chooses a node by.
    """

    __slots__ = ("diverged", "model", "nodes", "peers", "size", "want")

    lane: Lane

    def __init__(self, model: str | None, size: int, want: RoutingHint) -> None:
        self.model = model
        self.size = size
        self.want = want
        self.diverged = False
        self.peers: list[str] = []
        self.nodes: list[str] = []

    @property
    @abstractmethod
    def choices(self) -> Sequence[Choice[D]]: ...

    @property
    @abstractmethod
    def delivered(self) -> int:
        """Tokens, over all choices."""

    @property
    def complete(self) -> bool:
        return all(choice.finished for choice in self.choices)

    @abstractmethod
    def close_full(self) -> list[D]:
        """End the choices that have all their tokens but lack a finish reason, lost with their node."""


def enter(choices: Sequence[Choice[D]], delta: D) -> None:
    """Enter what a node sent into the choices of a ledger, before it is handed on. Raises WireError for what no honest
    node sends.
    """
    if not 0 <= delta.choice < len(choices) or (choice := choices[delta.choice]).finished:
        raise WireError("received a delta for an unknown or finished choice")
    choice.add(delta)
