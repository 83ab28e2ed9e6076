"""Record of one generation, independent of the nodes that run it, so that a failover changes nothing in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from subnet.chat import ChatDelta, Endpoint
from subnet.errors import WireError
from subnet.generation import NO_SIZE, Delta, Needs, RequestSize
from subnet.node_info import Lane, Modality
from subnet.pool.policies.base import RoutingHint

D = TypeVar("D", bound=Delta | ChatDelta)
E = TypeVar("E", bound=Delta | ChatDelta, contravariant=True)


class Choice(Protocol[E]):
    """One choice of a generation; `finished` once its finish reason was delivered."""

    index: int
    finished: bool

    def add(self, delta: E) -> None:
        """Record `delta`, for an unfinished choice. Raises WireError if it breaks the protocol."""


class Ledger(ABC, Generic[D]):
    """Request and delivered deltas of one generation, with all its choices, on either lane.

    `peers` are the addresses of the nodes used so far, in order, and `nodes` their names. `prompt_size` is in tokens.
    `needs` are the features that nodes must support. `refused_context` is the longest context, in tokens, of a node
    that refused the request as too long. `identity` is that of the card for which the prompt was made, see ModelCard;
    "" for any. `diverged` is set once a replay returned something else than was delivered. `replayed_tokens` counts the
    tokens that replays repeated, and that are not part of the answer's usage.
    """

    __slots__ = (
        "diverged",
        "identity",
        "model",
        "needs",
        "nodes",
        "peers",
        "prompt_size",
        "refused_context",
        "replayed_tokens",
        "routing_hint",
    )

    lane: Lane

    def __init__(self, model: str | None, prompt_size: int, routing_hint: RoutingHint, needs: Needs = ()) -> None:
        self.model = model
        self.needs = needs
        self.prompt_size = prompt_size
        self.routing_hint = routing_hint
        self.identity = ""
        self.diverged = False
        self.refused_context = 0
        self.replayed_tokens = 0
        self.peers: list[str] = []
        self.nodes: list[str] = []

    @property
    @abstractmethod
    def choices(self) -> Sequence[Choice[D]]: ...

    @property
    @abstractmethod
    def delivered_tokens(self) -> int:
        """Number of tokens delivered so far, over all choices."""

    @property
    def digest(self) -> bytes | None:
        """Digest of what the request asks for, whoever sends it; None if it is not known what that is."""
        return None

    @property
    def endpoint(self) -> Endpoint:
        """Endpoint that a server needs, on the chat lane."""
        return "chat/completions"

    @property
    def size(self) -> RequestSize:
        """Size of the rest of the generation, to choose a node that has room for it."""
        return RequestSize(prompt=self.refused_context + 1) if self.refused_context else NO_SIZE

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs besides text that a node must accept."""
        return frozenset()

    @property
    def weights(self) -> str:
        """Fingerprint of the weights that a node for the rest of the generation should have; "": any."""
        return ""

    def record_weights(self, weights: str) -> None:
        """Record that a node with `weights` produced the tokens delivered since the last call."""
        return

    @property
    def complete(self) -> bool:
        return all(choice.finished for choice in self.choices)

    @abstractmethod
    def finish_full_choices(self) -> list[D]:
        """Finish choices that have max_tokens tokens but lost their finish reason with the node.

        Returns the missing last delta of each.
        """


def record_delta(choices: Sequence[Choice[D]], delta: D) -> None:
    """Record a delta from a node in its choice, before it is passed on. Raises WireError if it breaks the protocol."""
    if not 0 <= delta.choice < len(choices) or (choice := choices[delta.choice]).finished:
        raise WireError("received a delta for an unknown or finished choice")
    choice.add(delta)
