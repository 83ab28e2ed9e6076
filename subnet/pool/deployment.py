"""One model on one node, which fails and recovers independently of the node's other models."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Literal

import msgspec

from subnet.chat import Endpoint
from subnet.errors import NodeBusy, NoNodeAvailable, RateLimited
from subnet.node_info import ModelCard
from subnet.pool.breaker import Breaker

if TYPE_CHECKING:
    from subnet.pool.node import RemoteNode

DeploymentState = Literal["healthy", "mismatch", "breaker-open", "breaker-half-open", "full"]

# Number of recent first tokens whose times are kept.
_FIRST_TOKENS = 200
# Seconds without new requests to a deployment that is at capacity and sent no retry_after.
_DEFAULT_RETRY_AFTER = 1.0
# Seconds after which a server is asked again for an endpoint that it did not have.
_MISSING_TIME = 60.0
# Seconds within which two wrong refusals count against a node.
_REFUSAL_TIME = 60.0


class DeploymentStatus(msgspec.Struct, frozen=True):
    """State of a deployment. `reason` says why it gets no or fewer requests, None if it is healthy."""

    state: DeploymentState
    reason: str | None = None


class Deployment:
    """The model `model` on the node `remote`: a provider serves many models at one address, and each can fail alone.

    `card` describes the model, None if the node does not serve it any more, and `identity` is the card's. `mismatch` is
    the reason why it must not serve the model's requests, see CardComparison; None for no such reason.

    `last_error` is the last failure of a request. `first_token_times` are those of recent requests, in seconds, if
    requests are hedged. `context_length` is in tokens, infinite if it is not known; `weights` is the fingerprint in the
    card. The deployment gets no requests until `busy_until`, because it is at capacity or, if `rate_limited`, because
    of a rate limit; `announced_wait` if the node itself said for how long. `priority`, `weight` and `is_named` are from
    Protocol.placement.
    """

    def __init__(self, remote: RemoteNode, model: str) -> None:
        placement = remote.protocol.placement(model)
        self.remote = remote
        self.peer = remote.peer
        self.model = model
        self.priority = placement.priority
        self.weight = placement.weight
        self.is_named = placement.named
        self.breaker = Breaker()
        self.busy_until = 0.0
        self.rate_limited = False
        self.announced_wait = False
        self.last_error = ""
        self.first_token_times: deque[float] = deque(maxlen=_FIRST_TOKENS)
        self.context_length: float = inf
        self.card: ModelCard | None = None
        self.identity = ""
        self.mismatch: str | None = None
        self.weights = ""
        self.update()
        self._last_invalid_answer: int | None = None
        self._last_wrong_refusal: tuple[bytes, float] | None = None
        self._missing: dict[Endpoint, float] = {}

    @property
    def load(self) -> float:
        """Share of the node's slots in use."""
        return self.remote.load

    def update(self) -> None:
        """Read the card from the node's description, after it has changed."""
        card = None if self.remote.info is None else self.remote.info.card(self.model)
        if card != self.card:
            self.card = card
            self.identity = "" if card is None else card.identity
            self.context_length = inf if card is None or not card.context_length else card.context_length
            self.weights = "" if card is None else card.weights

    def available(self, now: float) -> bool:
        """Return whether a request may be sent now."""
        return not self.remote.at_capacity and now >= self.busy_until and self.breaker.allows(now)

    def mark_busy(self, error: NodeBusy, now: float) -> None:
        """Keep new requests away for the error's retry_after."""
        self.busy_until = now + (error.retry_after or _DEFAULT_RETRY_AFTER)
        self.rate_limited = isinstance(error, RateLimited)
        self.announced_wait = error.retry_after is not None

    def mark_missing(self, endpoint: Endpoint, now: float) -> None:
        """Keep requests to an endpoint away for a while that the server does not have."""
        self._missing[endpoint] = now + _MISSING_TIME

    def offers(self, endpoint: Endpoint, now: float) -> bool:
        """Return whether the server may have an endpoint."""
        return not self._missing or now >= self._missing.get(endpoint, 0.0)

    def on_slot_released(self) -> None:
        """Record that a request ended: an earlier NodeBusy no longer applies; a rate limit still does."""
        if not self.rate_limited:
            self.busy_until = 0.0

    def on_restart(self, now: float) -> None:
        """Record that the node has restarted: failures of the previous process say little about this one."""
        self.breaker.on_restart(now)
        self.busy_until = 0.0
        self._missing.clear()

    def is_repeated_answer(self, request: int | None) -> bool:
        """Record that the answer to `request` (a hash of its prompt) was invalid, and return whether the previous
        invalid answer was to the same one: then the request is the likely cause. None: unknown.
        """
        previous, self._last_invalid_answer = self._last_invalid_answer, request
        return request is not None and request == previous

    def is_wrong_again(self, request: bytes, now: float) -> bool:
        """Record that `request` (its digest) was refused wrongly, and return whether another one was, too, within
        `_REFUSAL_TIME`: one request alone may be a matter of opinion.
        """
        previous, self._last_wrong_refusal = self._last_wrong_refusal, (request, now)
        return previous is not None and previous[0] != request and now - previous[1] < _REFUSAL_TIME

    def status(self, now: float) -> DeploymentStatus:
        """Return the state and its reason, as far as they concern this model alone."""
        if self.mismatch is not None:
            return DeploymentStatus("mismatch", self.mismatch)
        match self.breaker.state(now):
            case "open":
                wait = self.breaker.remaining_cooldown(now)
                return DeploymentStatus("breaker-open", f"{self._failures}; retry in {wait:.1f} s")
            case "half-open":
                trial = "the next request is a trial" if self.breaker.allows(now) else "a trial request is running"
                return DeploymentStatus("breaker-half-open", f"{self._failures}; {trial}")
        if (wait := self.busy_until - now) <= 0:
            return DeploymentStatus("healthy")
        if self.rate_limited:
            return DeploymentStatus("full", f"rate-limited by the upstream server; retry in {wait:.1f} s")
        return DeploymentStatus("full", f"the node rejected a request for lack of capacity; retry in {wait:.1f} s")

    @property
    def _failures(self) -> str:
        return f"{self.breaker.reason}, last error: {self.last_error}"


def unavailable_error(candidates: Sequence[Deployment], now: float) -> NodeBusy | NoNodeAvailable:
    """Return the error to raise when none of `candidates` is available.

    Its retry_after is the time until one may be; None if no node has announced one.
    """
    busy = [one for one in candidates if one.busy_until > now]
    wait = min((one.busy_until - now for one in busy if one.announced_wait), default=None)
    if busy and all(one.rate_limited for one in candidates if one in busy or one.remote.at_capacity):
        return RateLimited("all nodes are rate-limited", retry_after=wait)
    if busy or any(one.remote.at_capacity for one in candidates):
        return NodeBusy("all nodes are at capacity", retry_after=wait)
    if any(one.breaker.state(now) == "half-open" for one in candidates):
        # Each has a trial request running, whose first token admits more.
        return NodeBusy("all nodes are recovering, and each has a trial request running")
    cooldown = min(one.breaker.remaining_cooldown(now) for one in candidates)
    return NoNodeAvailable("All nodes that serve the model are failing.", retry_after=cooldown or None)
