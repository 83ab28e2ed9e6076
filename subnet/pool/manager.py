"""The live table of nodes, and which of them is next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

from subnet.authorizers import AuthorizerBase
from subnet.errors import NodeError, NoNodeAvailable, SessionClosed
from subnet.node_info import GrammarKind, Lane, ModelCard
from subnet.pool.health_check import Prober
from subnet.pool.lease import Lease
from subnet.pool.node import Remote, Status, refusal
from subnet.pool.policies.base import Policy, Want
from subnet.pool.policies.round_robin import RoundRobin
from subnet.pool.wait_queue import Line
from subnet.protocols.base import Protocol
from subnet.protocols.websocket import WebSocketProtocol

logger = logging.getLogger(__name__)


class RemoteManager:
    """Table of nodes: checks their health in the background and selects the node for each request.

    `nodes` are URLs of subnet nodes or Protocol objects. Use it as `async with RemoteManager(...) as manager`; leaving
    the block closes all protocols, including those passed in. Health checks run every `probe_interval` seconds; a node
    that does not answer one within `health_check_timeout` seconds is unreachable.
    """

    def __init__(
        self,
        nodes: Iterable[str | Protocol] = (),
        *,
        authorizer: AuthorizerBase | None = None,
        policy: Policy | None = None,
        probe_interval: float = 2.0,
        health_check_timeout: float = 3.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._initial = list(nodes)
        self.authorizer = authorizer
        self.line = Line()
        self._changed = asyncio.Event()
        self._closed = False
        self._policy = policy or RoundRobin()
        self._probe_interval = probe_interval
        self._probe_timeout = health_check_timeout
        self._clock = clock
        self._probers: dict[str, Prober] = {}
        self._models: dict[str, ModelCard] | None = None

    @property
    def remotes(self) -> list[Remote]:
        """All nodes, in the order in which they were added."""
        return [prober.remote for prober in self._probers.values()]

    def add(self, node: str | Protocol) -> Remote:
        """Add a node; does nothing if its peer is already in the table."""
        protocol = WebSocketProtocol(node, self.authorizer) if isinstance(node, str) else node
        if protocol.peer not in self._probers:
            self._probers[protocol.peer] = Prober(
                Remote(protocol),
                interval=self._probe_interval,
                timeout=self._probe_timeout,
                notify=self._notify,
                clock=self._clock,
            )
        return self._probers[protocol.peer].remote

    async def remove(self, peer: str) -> None:
        """Remove a node; its running requests fail over. Unknown peers are ignored."""
        prober = self._probers.pop(peer, None)
        if prober is not None:
            self._notify()
            await prober.aclose()

    async def ready(self, model: str | None = None) -> Remote:
        """Wait until a node serves `model` (None: any model)."""
        while True:
            with suppress(NoNodeAvailable):
                return self._candidates(model)[0]
            await self._changed.wait()

    def models(self) -> Mapping[str, ModelCard]:
        """Models served by at least one healthy node."""
        if self._models is None:
            self._models = self._found()
        return self._models

    def _found(self) -> dict[str, ModelCard]:
        healthy = (remote.info for remote in self.remotes if remote.fault is None)
        here = (card for info in healthy if info is not None and not info.draining for card in info.cards)
        # Where a model is on both lanes, the last one stands: that of tokens.
        return {card.id: card for card in sorted(here, key=lambda card: card.lane == "token")}

    def grammars(self, model: str | None) -> frozenset[GrammarKind]:
        """Grammar kinds that all healthy nodes of `model` on the token lane support."""
        here = (remote for remote in self.remotes if remote.fault is None and remote.serves(model, "token"))
        kinds = [frozenset(remote.info.capabilities.grammars) for remote in here if remote.info is not None]
        return frozenset[GrammarKind].intersection(*kinds) if kinds else frozenset()

    async def artefact(self, sha256: str) -> bytes:
        """Fetch a tokenizer artefact from the first node that provides it. Raises NoNodeAvailable."""
        for remote in self.remotes:
            if remote.info is not None and any(card.tokenizer == sha256 for card in remote.info.cards):
                try:
                    return await remote.protocol.rpc_artefact(sha256)
                except NodeError as error:
                    logger.warning("%s: %s", remote.peer, error)
        raise NoNodeAvailable(f"No node could provide the tokenizer {sha256[:12]}.")

    def status(self, remote: Remote) -> Status:
        """State of a node, and the reason if it gets no requests."""
        return remote.status(self._clock())

    def lease(
        self,
        model: str | None,
        excluded: Collection[str] = (),
        want: Want | None = None,
        lane: Lane = "token",
    ) -> Lease:
        """Reserve a slot for the next attempt, on a node not in `excluded` if possible; the policy decides by `want`.

        The caller reports the outcome to the lease. Raises NoNodeAvailable, NodeBusy or SessionClosed.
        """
        if self._closed:
            raise SessionClosed("the RemoteManager is closed")
        now = self._clock()
        able = self._candidates(model, lane)
        free = [remote for remote in able if remote.available(now)]
        if not free:
            raise refusal(able, now)
        candidates = [remote for remote in free if remote.peer not in excluded] or free
        chosen = self._policy.choose(candidates, want or Want())
        return Lease(self._probers[chosen.peer], self._clock)

    def on_request_success(self, peer: str) -> None:
        """Report success of a peer's latest request, for callers that do not have its lease."""
        if (lease := self._latest(peer)) is not None:
            lease.succeeded()

    def on_request_failure(self, peer: str, error: NodeError | None = None) -> None:
        """Report that a peer's latest request failed with `error`, see Lease.failed."""
        if (lease := self._latest(peer)) is not None:
            lease.failed(error)

    def on_request_abandoned(self, peer: str) -> None:
        if (lease := self._latest(peer)) is not None:
            lease.abandoned()

    async def __aenter__(self) -> Self:
        for node in self._initial:
            self.add(node)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await asyncio.gather(*(self.remove(peer) for peer in list(self._probers)))

    def _candidates(self, model: str | None, lane: Lane | None = None) -> list[Remote]:
        able = [remote for remote in self.remotes if remote.fault is None and remote.serves(model, lane)]
        if not able:
            raise NoNodeAvailable(f"No node serves the model '{model}' now." if model else "No node is available.")
        return able

    def _notify(self) -> None:
        """Something was heard of a node, or it is no longer in the table."""
        self._models = None
        self._changed.set()
        self._changed.clear()

    def _latest(self, peer: str) -> Lease | None:
        prober = self._probers.get(peer)
        return None if prober is None else next(reversed(prober.remote.leases), None)
