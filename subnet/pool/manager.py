"""The live table of nodes and the selection of a node for each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

import msgspec

from subnet.authorizers import AuthorizerBase
from subnet.chat import Endpoint
from subnet.errors import EndpointMissing, NodeError, NoNodeAvailable, SessionClosed
from subnet.generation import NO_SIZE, RequestSize
from subnet.node_info import GrammarKind, Lane, ModelCard
from subnet.pool.deployment import Deployment, DeploymentStatus, unavailable_error
from subnet.pool.health_check import HealthChecker
from subnet.pool.lease import Lease
from subnet.pool.node import NodeStatus, RemoteNode
from subnet.pool.policies.base import Policy, RoutingHint
from subnet.pool.policies.round_robin import RoundRobin
from subnet.pool.wait_queue import WaitQueue
from subnet.protocols.base import Protocol
from subnet.protocols.websocket import WebSocketProtocol

logger = logging.getLogger(__name__)


class RemoteManager:
    """Table of nodes: checks their health in the background and selects the node for each request.

    `nodes` are URLs of subnet nodes or Protocol objects. Use it as `async with RemoteManager(...) as manager`; leaving
    the block closes all protocols, including those passed in. Health checks run every `probe_interval` seconds; a node
    that does not respond within `health_check_timeout` seconds is unreachable. `wait_queue` holds the requests that
    wait for capacity. `clock` returns monotonic time in seconds.
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
        self.wait_queue = WaitQueue()
        self._changed = asyncio.Event()
        self._closed = False
        self._policy = policy or RoundRobin()
        self._probe_interval = probe_interval
        self._health_check_timeout = health_check_timeout
        self._clock = clock
        self._health_checkers: dict[str, HealthChecker] = {}
        self._models: dict[str, ModelCard] | None = None

    @property
    def remotes(self) -> list[RemoteNode]:
        """All nodes, in the order in which they were added."""
        return [checker.remote for checker in self._health_checkers.values()]

    def add(self, node: str | Protocol) -> RemoteNode:
        """Add a node; does nothing if its peer is already in the table."""
        protocol = WebSocketProtocol(node, self.authorizer) if isinstance(node, str) else node
        if protocol.peer not in self._health_checkers:
            self._health_checkers[protocol.peer] = HealthChecker(
                RemoteNode(protocol),
                interval=self._probe_interval,
                timeout=self._health_check_timeout,
                on_change=self._on_change,
                clock=self._clock,
            )
        return self._health_checkers[protocol.peer].remote

    async def remove(self, peer: str) -> None:
        """Remove a node; its running requests fail over. Unknown peers are ignored."""
        checker = self._health_checkers.pop(peer, None)
        if checker is not None:
            self._on_change()
            await checker.aclose()

    async def ready(self, model: str | None = None) -> RemoteNode:
        """Wait until a healthy node serves `model` (None: any model), and return the node."""
        while True:
            with suppress(NoNodeAvailable):
                return self._serving(model)[0]
            await self._changed.wait()

    def models(self) -> Mapping[str, ModelCard]:
        """Return the models served by at least one healthy node, by id."""
        if self._models is None:
            self._models = self._collect_models()
        return self._models

    def _collect_models(self) -> dict[str, ModelCard]:
        infos = (remote.info for remote in self.remotes if remote.unreachable_reason is None)
        cards = (card for info in infos if info is not None and not info.draining for card in info.cards)
        found: dict[str, ModelCard] = {}
        for card in cards:
            found[card.id] = _preferred(found[card.id], card) if card.id in found else card
        return found

    def grammars(self, model: str | None) -> frozenset[GrammarKind]:
        """Return the grammar kinds that all healthy nodes of `model` on the token lane support."""
        nodes = (r for r in self.remotes if r.unreachable_reason is None and r.serves(model, "token"))
        kinds = [frozenset(remote.info.capabilities.grammars) for remote in nodes if remote.info is not None]
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

    def status(self, remote: RemoteNode) -> NodeStatus:
        """Return the state of a node, its reason and its age."""
        return remote.status(self._clock())

    def deployment_status(self, deployment: Deployment) -> DeploymentStatus:
        """Return the state of one model on one node, and its reason."""
        return deployment.status(self._clock())

    def lease(
        self,
        model: str | None,
        excluded: Collection[str] = (),
        hint: RoutingHint | None = None,
        lane: Lane = "token",
        failed_deployments: set[Deployment] | None = None,
        size: RequestSize = NO_SIZE,
        endpoint: Endpoint = "chat/completions",
    ) -> Lease:
        """Reserve a slot on a node that serves `model` (None: any model) on `lane`, at `endpoint` on the chat lane.

        The candidates are the available nodes not in `excluded`, or all available ones if there are no others; of
        these, those with the lowest priority number. Only nodes whose context has room for the request (`size`) are
        considered, if there are any. The policy chooses one of them, by `hint`. The caller reports the
        outcome to the lease; all leases of one request share `failed_deployments`, see Lease. Raises NoNodeAvailable,
        NodeBusy, SessionClosed, or EndpointMissing if no server of the model has the endpoint.
        """
        if self._closed:
            raise SessionClosed("the RemoteManager is closed")
        now = self._clock()
        serving = self._with_room(self._offering(model, lane, endpoint, now), size)
        available = [one for one in serving if one.available(now)]
        if not available:
            raise unavailable_error(serving, now)
        candidates = [one for one in available if one.peer not in excluded] or available
        priority = min(one.priority for one in candidates)
        chosen = self._policy.choose([one for one in candidates if one.priority == priority], hint or RoutingHint())
        return Lease(chosen, self._health_checkers[chosen.peer], self._clock, hint, failed_deployments, endpoint)

    def has_other(
        self,
        model: str | None,
        excluded: Collection[str],
        lane: Lane = "token",
        endpoint: Endpoint = "chat/completions",
    ) -> bool:
        """Return whether a node not in `excluded` can take a request for `model` on `lane`, at `endpoint`, now."""
        now = self._clock()
        nodes = (one for one in self.remotes if one.unreachable_reason is None and one.serves(model, lane))
        others = (one.deployment(model) for one in nodes if one.peer not in excluded)
        return any(one.available(now) and one.offers(endpoint, now) for one in others)

    def on_request_success(self, peer: str) -> None:
        """Report success of the latest request on `peer`, for callers without its lease. Unknown peers are ignored."""
        if (lease := self._latest_lease(peer)) is not None:
            lease.succeeded()

    def on_request_failure(self, peer: str, error: NodeError | None = None) -> None:
        """Report that the latest request on `peer` failed with `error`; see Lease.failed."""
        if (lease := self._latest_lease(peer)) is not None:
            lease.failed(error)

    def on_request_abandoned(self, peer: str) -> None:
        """Report that the latest request on `peer` ended without an outcome; see Lease.abandoned."""
        if (lease := self._latest_lease(peer)) is not None:
            lease.abandoned()

    async def __aenter__(self) -> Self:
        for node in self._initial:
            self.add(node)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await asyncio.gather(*(self.remove(peer) for peer in list(self._health_checkers)))

    def _serving(self, model: str | None, lane: Lane | None = None) -> list[RemoteNode]:
        serving = [r for r in self.remotes if r.unreachable_reason is None and r.serves(model, lane)]
        if not serving:
            raise NoNodeAvailable(f"No node serves the model '{model}' now." if model else "No node is available.")
        return serving

    def _offering(self, model: str | None, lane: Lane, endpoint: Endpoint, now: float) -> list[Deployment]:
        """Return the deployments of reachable nodes that may have `endpoint`."""
        deployments = [remote.deployment(model) for remote in self._serving(model, lane)]
        if found := [one for one in deployments if one.offers(endpoint, now)]:
            return found
        unreachable = [one for one in self.remotes if one.unreachable_reason is not None and one.serves(model, lane)]
        if any(one.deployment(model).offers(endpoint, now) for one in unreachable):
            raise NoNodeAvailable(f"No node serves the model '{model}' at /v1/{endpoint} now.", retry_after=1.0)
        raise EndpointMissing(f"The model '{model}' does not support /v1/{endpoint}.", param="model")

    def _with_room(self, deployments: list[Deployment], size: RequestSize) -> list[Deployment]:
        """Return the deployments whose context has room for the whole request, or else for one new token.

        If there are none, nodes judge a new request themselves, but must not end an answer that has begun.
        """
        used = size.prompt + size.delivered
        for tokens in (used + size.requested, used + 1):
            if found := [one for one in deployments if tokens <= one.context_length]:
                return found
        if size.delivered:
            raise NoNodeAvailable(f"No node with a context of more than {used} tokens serves the model now.")
        return deployments

    def _on_change(self) -> None:
        """Drop cached models and wake `ready`: a node's state changed, or a node was removed."""
        self._models = None
        self._changed.set()
        self._changed.clear()

    def _latest_lease(self, peer: str) -> Lease | None:
        checker = self._health_checkers.get(peer)
        return None if checker is None else next(reversed(checker.remote.leases), None)


def _preferred(first: ModelCard, second: ModelCard) -> ModelCard:
    """Return the card that describes a model of which nodes have two.

    The token lane wins over the chat lane, and of the same lane the first node, with the longest context of both.
    """
    if first.lane != second.lane:
        return first if first.lane == "token" else second
    if first.context_length >= second.context_length or not first.context_length:
        return first
    return msgspec.structs.replace(first, context_length=second.context_length)
