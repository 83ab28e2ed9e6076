"""The live table of nodes and the selection of a node for each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

import msgspec

from subnet.authorizers import AuthorizerBase
from subnet.budget import Budget
from subnet.chat import Endpoint
from subnet.errors import (
    EndpointMissing,
    InvalidRequest,
    NodeError,
    NoNodeAvailable,
    RequestError,
    SessionClosed,
    printable,
)
from subnet.generation import are_met
from subnet.node_info import Capabilities, GrammarKind, Lane, ModelCard
from subnet.pool.card_comparison import CardComparison, DigestReader
from subnet.pool.deployment import Deployment, DeploymentStatus, unavailable_error
from subnet.pool.health_check import HealthChecker
from subnet.pool.lease import Lease
from subnet.pool.node import NodeStatus, RemoteNode
from subnet.pool.policies.base import Policy, RoutingHint
from subnet.pool.policies.round_robin import RoundRobin
from subnet.pool.requirements import ANY, Requirements, accepting, supporting, with_room, with_weights
from subnet.pool.wait_queue import WaitQueue
from subnet.protocols.base import Protocol
from subnet.protocols.websocket import WebSocketProtocol
from subnet.tensors import TokenIds

logger = logging.getLogger(__name__)

_CHAT = Requirements("chat")
# Nodes that are asked to tokenize a text, as long as they refuse it.
_MAX_REFUSALS = 2


class RemoteManager:
    """Table of nodes: checks their health in the background and selects the node for each request.

    `nodes` are URLs of subnet nodes or Protocol objects. Use it as `async with RemoteManager(...) as manager`; leaving
    the block closes all protocols, including those passed in. Health checks run every `probe_interval` seconds; a node
    that does not respond within `health_check_timeout` seconds is unreachable. `wait_queue` holds the requests that
    wait for capacity; each takes a unit of `waiting` (None: no limit). `clock` returns monotonic time in seconds.
    """

    def __init__(
        self,
        nodes: Iterable[str | Protocol] = (),
        *,
        authorizer: AuthorizerBase | None = None,
        policy: Policy | None = None,
        probe_interval: float = 2.0,
        health_check_timeout: float = 3.0,
        waiting: Budget | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._initial = list(nodes)
        self.authorizer = authorizer
        self.wait_queue = WaitQueue(waiting, clock)
        self._changed = asyncio.Event()
        self._closed = False
        self._policy = policy or RoundRobin()
        self._probe_interval = probe_interval
        self._health_check_timeout = health_check_timeout
        self._clock = clock
        self._health_checkers: dict[str, HealthChecker] = {}
        self._models: dict[str, ModelCard] | None = None
        self._lanes: dict[str, dict[Lane, ModelCard]] = {}
        self._healthy_deployments: dict[tuple[str | None, Lane], Sequence[Deployment]] = {}
        self._cards = CardComparison(self._on_change, clock)
        self._reviewed_changes = 0

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
                on_change=self._on_health_check,
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
                return self._any_lane(model).remote
            await self._changed.wait()

    def _any_lane(self, model: str | None) -> Deployment:
        with suppress(NoNodeAvailable):
            return self._serving(model, ANY)[0]
        return self._serving(model, _CHAT)[0]

    def compare_cards(self, read_digest: DigestReader, pinned: Mapping[str, str] | None = None) -> None:
        """Compare the cards of nodes by what they do; see CardComparison. Without it, only equal cards are the same."""
        self._cards.start(read_digest, pinned or {})
        self._on_change()

    def models(self) -> Mapping[str, ModelCard]:
        """Return the models served by at least one healthy node, by id; of two lanes, the card of the token lane."""
        if self._models is None:
            self._lanes = self._collect_cards()
            self._models = {name: cards.get("token") or cards["chat"] for name, cards in self._lanes.items()}
        return self._models

    def cards(self, model: str) -> Mapping[Lane, ModelCard]:
        """Return the card of a model on each lane on which healthy nodes serve it.

        It is that of the first node, with the longest context of all.
        """
        self.models()
        return self._lanes.get(model, {})

    def _collect_cards(self) -> dict[str, dict[Lane, ModelCard]]:
        found: dict[str, dict[Lane, ModelCard]] = {}
        for remote in self.remotes:
            if remote.unreachable_reason is None and remote.info is not None and not remote.info.draining:
                for card in remote.info.cards:
                    if remote.deployment(card.id).mismatch is None:
                        lanes = found.setdefault(card.id, {})
                        lanes[card.lane] = _with_longest_context(lanes.get(card.lane, card), card)
        return found

    def grammars(self, model: str | None) -> tuple[frozenset[GrammarKind], frozenset[GrammarKind]]:
        """Return the grammar kinds that all healthy nodes of `model` on the token lane support, and those of any."""
        kinds = [frozenset(one.remote.capabilities.grammars) for one in self._admitted(model, "token")]
        if not kinds:
            return frozenset(), frozenset()
        return kinds[0].intersection(*kinds), kinds[0].union(*kinds)

    def capabilities(self, model: str, lane: Lane = "token") -> list[Capabilities]:
        """Return the optional features of each healthy node that serves `model` on `lane`."""
        return [one.remote.capabilities for one in self._admitted(model, lane)]

    def capacity(self, model: str, lane: Lane = "token") -> int:
        """Return the number of choices that the healthy nodes of `model` on `lane` can generate at once, at least 1."""
        return max(1, sum(one.remote.capacity for one in self._admitted(model, lane)))

    async def artefact(self, sha256: str) -> bytes:
        """Fetch a tokenizer artefact from the first node that provides it. Raises NoNodeAvailable."""
        for remote in self._with_tokenizer(sha256):
            try:
                return await remote.protocol.rpc_artefact(sha256)
            except NodeError as error:
                logger.warning("%s: %s", remote.peer, error)
        raise NoNodeAvailable(f"No node could provide the tokenizer {sha256[:12]}.")

    async def tokenize(self, sha256: str, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of plain texts from the first node with this tokenizer that answers, healthy ones first.

        Raises InvalidRequest if two nodes refuse the texts, or the only one, and NoNodeAvailable if none answers.
        """
        refusals = 0
        for remote in sorted(self._with_tokenizer(sha256), key=lambda remote: remote.unreachable_reason is not None):
            try:
                return await remote.protocol.rpc_tokenize(texts, sha256)
            except (NodeError, RequestError) as error:
                logger.warning("%s cannot tokenize: %s", remote.peer, printable(error.message))
                refusals += isinstance(error, RequestError)
            if refusals == _MAX_REFUSALS:
                break
        if refusals:
            raise InvalidRequest("The model's nodes cannot tokenize the text of this request.", param="messages")
        raise NoNodeAvailable(f"No node could tokenize with the tokenizer {sha256[:12]}.", retry_after=1.0)

    def _with_tokenizer(self, sha256: str) -> list[RemoteNode]:
        """Return the nodes with a tokenizer. Those whose card is refused are left out if there are others: texts of
        prompts are not for them.
        """
        found = [
            one
            for remote in self.remotes
            for one in remote.deployments
            if one.card is not None and one.card.tokenizer == sha256
        ]
        return [one.remote for one in ([one for one in found if one.mismatch is None] or found)]

    def status(self, remote: RemoteNode) -> NodeStatus:
        """Return the state of a node, its reason and its age."""
        return remote.status(self._clock())

    def deployment_status(self, deployment: Deployment) -> DeploymentStatus:
        """Return the state of one model on one node, and its reason."""
        return deployment.status(self._clock())

    def card_digest(self, deployment: Deployment) -> str | None:
        """Return the digest of the deployment's card; None on the chat lane, and until it was read."""
        return self._cards.digest(deployment)

    def lease(
        self,
        model: str | None,
        excluded: Collection[str] = (),
        hint: RoutingHint | None = None,
        requirements: Requirements = ANY,
        failed_deployments: set[Deployment] | None = None,
    ) -> Lease:
        """Reserve a slot on a node that serves `model` (None: any model) and meets the `requirements`.

        The candidates are the available nodes not in `excluded`, or all available ones if there are no others; of
        these, those with the required weights, if there are any, whatever their priority; of these, those with the
        lowest priority number. The policy chooses one of them, by `hint`. The caller reports the outcome to the lease;
        all leases of one request share `failed_deployments`, see Lease. Raises NoNodeAvailable, NodeBusy,
        SessionClosed, or EndpointMissing if no server of the model has the endpoint.
        """
        if self._closed:
            raise SessionClosed("the RemoteManager is closed")
        now = self._clock()
        serving = self._meeting(model, requirements, excluded)
        available = [one for one in serving if one.available(now)]
        if not available:
            raise unavailable_error(serving, now)
        untried = [one for one in available if one.peer not in excluded] if excluded else available
        candidates = with_weights(untried or available, requirements.weights)
        priority = min(one.priority for one in candidates)
        chosen = self._policy.choose([one for one in candidates if one.priority == priority], hint or RoutingHint())
        checker, endpoint = self._health_checkers[chosen.peer], requirements.endpoint
        return Lease(chosen, checker, self._clock, hint, failed_deployments, endpoint)

    def has_other(self, model: str | None, excluded: Collection[str], requirements: Requirements = ANY) -> bool:
        """Return whether a node not in `excluded` can take a request for `model` now."""
        now = self._clock()
        with suppress(NoNodeAvailable, EndpointMissing):
            serving = self._meeting(model, requirements, ())
            return any(one.available(now) for one in serving if one.peer not in excluded)
        return False

    def has_longer_context(self, model: str | None, requirements: Requirements, length: float) -> bool:
        """Return whether a healthy node of `model` has a context of more than `length` tokens, or of unknown length."""
        with suppress(NoNodeAvailable, EndpointMissing):
            return any(one.context_length > length for one in self._eligible(model, requirements, ()))
        return False

    def knows_longer_context(self, model: str | None, length: float) -> bool:
        """Return whether a node of `model` on the token lane, healthy or not, has a context of more than `length`."""
        found = [one.deployment(model) for one in self.remotes if one.serves(model, "token")]
        return any(one.context_length > length for one in found if one.mismatch is None)

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
        await self._cards.aclose()
        await asyncio.gather(*(self.remove(peer) for peer in list(self._health_checkers)))

    def _serving(self, model: str | None, requirements: Requirements) -> Sequence[Deployment]:
        """Return the healthy deployments of `model` that may get the request. Raises NoNodeAvailable."""
        healthy = self._healthy(model, requirements.lane)
        serving = self._admitted(model, requirements.lane, requirements.identity)
        if serving:
            return serving
        if healthy:
            raise NoNodeAvailable(f"No node serves the model '{healthy[0].model}' with the expected tokenizer now.")
        raise NoNodeAvailable(f"No node serves the model '{model}' now." if model else "No node is available.")

    def _admitted(self, model: str | None, lane: Lane, identity: str = "") -> Sequence[Deployment]:
        return [one for one in self._healthy(model, lane) if self._cards.admits(one, identity)]

    def _healthy(self, model: str | None, lane: Lane) -> Sequence[Deployment]:
        found = self._healthy_deployments.get((model, lane))
        if found is None:
            nodes = (one for one in self.remotes if one.unreachable_reason is None and one.serves(model, lane))
            found = [one.deployment(model) for one in nodes]
            if found:
                # Names that no node serves come from clients, and would fill the memory.
                self._healthy_deployments[model, lane] = found
        return found

    def _offering(
        self, model: str | None, deployments: Sequence[Deployment], endpoint: Endpoint
    ) -> Sequence[Deployment]:
        """Return the deployments that may have `endpoint`. Raises EndpointMissing, or NoNodeAvailable if only
        unreachable nodes may have it.
        """
        now = self._clock()
        if found := [one for one in deployments if one.offers(endpoint, now)]:
            return found
        unreachable = [one for one in self.remotes if one.unreachable_reason is not None and one.serves(model, "chat")]
        if any(one.deployment(model).offers(endpoint, now) for one in unreachable):
            raise NoNodeAvailable(f"No node serves the model '{model}' at /v1/{endpoint} now.", retry_after=1.0)
        raise EndpointMissing(f"The model '{model}' does not support /v1/{endpoint}.", param="model")

    def _meeting(
        self, model: str | None, requirements: Requirements, excluded: Collection[str]
    ) -> Sequence[Deployment]:
        """Return the healthy deployments that meet all requirements. Raises the errors of `lease`."""
        return with_room(self._eligible(model, requirements, excluded), requirements.size)

    def _eligible(
        self, model: str | None, requirements: Requirements, excluded: Collection[str]
    ) -> Sequence[Deployment]:
        """Return the healthy deployments that meet the requirements apart from their context.

        If none supports what the request needs, all do: they refuse it by the name of its parameter. But they must not
        refuse one that a node in `excluded` supports, which may have begun the answer and may come back.
        """
        serving, needs = self._serving(model, requirements), requirements.needs
        if requirements.lane == "chat":
            serving = self._offering(model, serving, requirements.endpoint)
        if needs:
            capable = supporting(serving, needs)
            if not capable and any(are_met(needs, one.capabilities) for one in self.remotes if one.peer in excluded):
                raise NoNodeAvailable("No node that supports all parameters of the request serves the model now.")
            serving = capable or serving
        if requirements.modalities:
            serving = accepting(serving, requirements.modalities)
        return serving

    def _on_change(self) -> None:
        """Review the cards, drop cached models and wake `ready`: what nodes serve has changed."""
        self._reviewed_changes = self._changes
        self._cards.review(self.remotes)
        self._models = None
        self._healthy_deployments.clear()
        self._changed.set()
        self._changed.clear()

    def _on_health_check(self) -> None:
        if self._changes != self._reviewed_changes or self._cards.is_stale:
            self._on_change()

    @property
    def _changes(self) -> int:
        return sum(remote.changes for remote in self.remotes)

    def _latest_lease(self, peer: str) -> Lease | None:
        checker = self._health_checkers.get(peer)
        return None if checker is None else next(reversed(checker.remote.leases), None)


def _with_longest_context(first: ModelCard, second: ModelCard) -> ModelCard:
    """Return the first card, with the longer context of both."""
    if first.context_length >= second.context_length or not first.context_length:
        return first
    return msgspec.structs.replace(first, context_length=second.context_length)
