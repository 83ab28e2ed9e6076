"""Interfaces of the work that a model does for a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from adapter.decode.events import Event
from adapter.decode.usage import Usage
from subnet import RequestState, SessionManager
from subnet.aio import Sink
from subnet.client.ledger.base import Ledger
from subnet.node_info import Lane, ModelCard

SinkFactory = Callable[[], Sink[Event]]
"""Creates a sink for the events of an answer; called again if the answer is restarted or another model is tried."""


class Candidate(NamedTuple):
    """A model to try for a request, on one lane.

    `lane` None: the lane on which it is served, if there is only one. `bound`: it may answer with fewer tokens than the
    client requested if its context has no room for all. `limit` is a lower maximum of new tokens than the client's, if
    one was found.
    """

    model: str
    lane: Lane | None = None
    bound: bool = False
    limit: int | None = None

    def __str__(self) -> str:
        return self.model if self.lane is None else f"{self.model} ({self.lane} lane)"


class TriedNodes(Protocol):
    """Nodes tried for one answer, in order: their names (`nodes`) and addresses (`peers`). `replayed_tokens` were
    generated again to resume it. `diverged`: a node did not repeat its beginning.
    """

    nodes: list[str]
    peers: list[str]
    replayed_tokens: int
    diverged: bool


class Work(ABC):
    """Work that the model of `card` does for a request.

    `usage` and `tried_nodes` are up to date at any time, also after the work was cancelled. `tried_nodes` has an entry
    for each answer, and is empty as long as no node was needed.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def card(self) -> ModelCard: ...

    @property
    @abstractmethod
    def usage(self) -> Usage: ...

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        return ()

    @property
    def relaxed(self) -> Sequence[str]:
        """Places in the request's JSON schemas, as parameters, that the answer need not follow."""
        return ()

    @property
    def room(self) -> int | None:
        """Maximum number of new tokens per choice that the context has room for at best, if the client's is higher. The
        token lane raises CompletionTooLong instead.
        """
        return None

    @property
    def bounded_tokens(self) -> int | None:
        """Maximum number of new tokens per choice, if it is lower than the client's because of the context; 0 if it is
        lower, but not known.
        """
        return None

    def may_bound(self, error: Exception) -> bool:
        """Return whether a request that was refused with `error` may be accepted with fewer new tokens."""
        return False

    async def run(  # noqa: B027 some work needs no nodes
        self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None = None
    ) -> None:
        """Run the work on nodes and pass its events to `emit` as they arrive.

        `state` is that of the request, if other models are tried for it, too. Cancelling the call cancels the work on
        the nodes. Raises SubnetError.
        """


class Generation(Work):
    """Generation of one answer, on either lane. `ledger` is None until a session exists."""

    __slots__ = ()

    @property
    @abstractmethod
    def fingerprint(self) -> str: ...

    @property
    @abstractmethod
    def ledger(self) -> Ledger[Any] | None: ...

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        ledger = self.ledger
        return () if ledger is None or not ledger.nodes else (ledger,)
