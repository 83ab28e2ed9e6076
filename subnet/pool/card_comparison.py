"""Comparison of the cards that nodes declare for one model: nodes that differ must not serve the same requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from subnet.errors import NoNodeAvailable
from subnet.node_info import Lane, ModelCard
from subnet.pool.deployment import Deployment
from subnet.pool.node import RemoteNode

logger = logging.getLogger(__name__)

DigestReader = Callable[[ModelCard], Awaitable[str]]
"""Returns the digest of what a card does: equal for cards that give the same prompts, token ids and stop tokens.

Raises NoNodeAvailable if the tokenizer cannot be fetched now, and any other error if the card cannot be used.
"""

# Of the cards whose digests are remembered, and are being read.
_MAX_CARDS = 256
# Limit of reading one card, and the time until a tokenizer that could not be fetched is fetched again. In seconds.
_READ_TIMEOUT = 30.0
_RETRY_INTERVAL = 5.0
# Seconds for which a reference whose last node is unreachable waits for it, where the settings name other nodes for the
# model: a short outage must not replace it.
_GRACE_PERIOD = 5.0

_NOT_NAMED = "the model belongs to {}; to use this node, too, name the model in its `models`"


class _Reference(msgspec.Struct):
    """What the nodes of a model must match: the lane and the card of the node `peer`.

    `identity` is that of the card, "" on the chat lane. `peers` are all nodes that have had it. `unseen` are the nodes
    before `peer` in the table that had not described themselves when it was chosen. `lost_at` is the time since which
    no healthy node has it; None if one has.
    """

    peer: str
    lane: Lane
    identity: str
    peers: set[str]
    unseen: set[str]
    lost_at: float | None = None


class CardComparison:
    """Decides which nodes of a model serve the same thing, and marks the others as mismatched.

    A name belongs to who the operator says. If `models` of some nodes name the model, only they can be its reference;
    all others must match it. Else the first node in the order of the table that describes itself with the model is the
    reference, also if it comes later than others, and its lane is that of the model. It stays the reference as long as
    any node of the table has its card, is unreachable or draining with it: nobody takes over the name of a node that
    restarts. Only where the settings name other nodes, they follow when no healthy node has had it for some seconds.

    On the token lane, a card must match: the one whose digest is in `pinned`, or else that of the reference. Cards are
    the same if they are equal, or if `read_digest` returns the same for them; while a card is being compared, its nodes
    get no requests. `on_change` is called when a card was read. `is_stale`: there is something to review at the next
    health check even if no node has changed.
    """

    def __init__(self, on_change: Callable[[], None], clock: Callable[[], float]) -> None:
        self.is_stale = False
        self._on_change = on_change
        self._clock = clock
        self._read_digest: DigestReader | None = None
        self._pinned: Mapping[str, str] = {}
        self._references: dict[str, _Reference] = {}
        # By identity of the card; "" for a card that cannot be used.
        self._digests: dict[str, str] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._retry_at: dict[str, float] = {}

    def start(self, read_digest: DigestReader, pinned: Mapping[str, str]) -> None:
        """Compare cards by what they do, not only by what they are, and with the digests of `pinned`, by model."""
        self._read_digest, self._pinned = read_digest, pinned
        self.is_stale = True

    async def aclose(self) -> None:
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def digest(self, deployment: Deployment) -> str | None:
        """Return the digest of the deployment's card; None if it was not read, or cannot be used."""
        return self._digests.get(deployment.identity) or None

    def admits(self, deployment: Deployment, identity: str) -> bool:
        """Return whether a request may go to `deployment`, whose prompt was made for the card `identity` ("": any)."""
        return self._is_same(deployment.identity, identity) if identity else deployment.mismatch is None

    def review(self, remotes: Sequence[RemoteNode]) -> None:
        """Choose the references, and set `mismatch` of the deployments of all healthy nodes; `remotes` is the table."""
        self.is_stale = False
        models: dict[str, list[Deployment]] = {}
        for remote in remotes:
            if remote.unreachable_reason is None and remote.info is not None and not remote.info.draining:
                for one in remote.deployments:
                    models.setdefault(one.model, []).append(one)
        self._forget_unserved(models, remotes)
        for model, deployments in models.items():
            self._start_reading(deployments)
            owners = [remote.peer for remote in remotes if remote.protocol.placement(model).named]
            if (pinned := self._pinned.get(model)) is not None:
                self._compare_with_pinned(deployments, pinned)
            elif owners:
                self._review_owned(model, deployments, remotes, owners)
            else:
                self._review_unowned(model, deployments, remotes)

    def _forget_unserved(self, models: Mapping[str, Sequence[Deployment]], remotes: Iterable[RemoteNode]) -> None:
        """Bound what is remembered, as names and cards are what nodes say. But a name is never forgotten as long as a
        node of the table, healthy or not, has it: another one could take it over.
        """
        claimed = {one.model for remote in remotes for one in remote.deployments}
        self._references = {name: one for name, one in self._references.items() if name in claimed}
        if len(self._digests) > _MAX_CARDS:
            served = {one.identity for deployments in models.values() for one in deployments}
            self._digests = {name: one for name, one in self._digests.items() if name in served}
        if len(self._retry_at) > _MAX_CARDS:
            self._retry_at.clear()

    def _compare_with_pinned(self, deployments: Iterable[Deployment], pinned: str) -> None:
        for one in deployments:
            if one.identity:
                self._mark(one, self._difference_from_pinned(one, pinned), self._is_read(one.identity))
            else:
                self._mark(one, None if one.is_named else _NOT_NAMED.format("the card of the model"), True)

    def _review_owned(
        self, model: str, deployments: Sequence[Deployment], remotes: Sequence[RemoteNode], owners: Sequence[str]
    ) -> None:
        """Compare with the nodes that the settings name. On the chat lane there is nothing to compare."""
        candidates = [one for one in deployments if one.is_named and one.identity]
        reference = self._choose(model, candidates, remotes, is_owned=True)
        for one in deployments:
            if one.identity and reference is not None:
                self._compare(one, reference)
            else:
                self._mark(one, None if one.is_named else _NOT_NAMED.format(", ".join(owners)), True)

    def _review_unowned(self, model: str, deployments: Sequence[Deployment], remotes: Sequence[RemoteNode]) -> None:
        reference = self._choose(model, deployments, remotes, is_owned=False)
        for one in deployments:
            if reference is not None:
                self._compare(one, reference)

    def _choose(
        self, model: str, candidates: Sequence[Deployment], remotes: Sequence[RemoteNode], *, is_owned: bool
    ) -> _Reference | None:
        """Return the reference of a model; None if there is none yet. It is a new one if it does not hold any more, or
        if a node before it in the table describes itself for the first time.
        """
        reference = self._references.get(model)
        usable = [one for one in candidates if self._digests.get(one.identity) != ""] or candidates
        if not usable:
            return reference
        first = usable[0]
        if reference is not None and (first.peer not in reference.unseen or self._has(first, reference)):
            if self._holds(reference, usable, remotes, is_owned=is_owned):
                return reference
            heirs = [] if is_owned else [one for one in usable if one.peer in reference.peers]
            first = (heirs or usable)[0]
        if reference is not None and not self._has(first, reference):
            logger.warning("model %s: the reference card is now that of %s", model, first.peer)
        unseen = {remote.peer for remote in _before(remotes, first.peer) if remote.info is None}
        lane: Lane = "token" if first.identity else "chat"
        self._references[model] = _Reference(first.peer, lane, first.identity, {first.peer}, unseen)
        return self._references[model]

    def _holds(
        self, reference: _Reference, usable: Sequence[Deployment], remotes: Iterable[RemoteNode], *, is_owned: bool
    ) -> bool:
        """Return whether a node that has the reference's card is healthy, or may come back with it."""
        model = usable[0].model
        reference.unseen &= {remote.peer for remote in remotes if remote.info is None}
        if holders := {one.peer for one in usable if self._has(one, reference)}:
            reference.peers |= holders
            reference.lost_at = None
            return True
        if not any(self._may_return(remote, model, reference, is_owned=is_owned) for remote in remotes):
            return False
        if not is_owned:
            return True
        now, self.is_stale = self._clock(), True
        reference.lost_at = now if reference.lost_at is None else reference.lost_at
        return now - reference.lost_at < _GRACE_PERIOD

    def _may_return(self, remote: RemoteNode, model: str, reference: _Reference, *, is_owned: bool) -> bool:
        """Return whether a node that gets no requests now had the reference's card last, which can be used. One that
        leaves on purpose does not keep the reference from other nodes that the settings name.
        """
        if remote.info is None or remote.info.card(model) is None:
            return False
        is_gone = remote.unreachable_reason is not None or remote.info.draining
        if not is_gone or (is_owned and (remote.info.draining or not remote.deployment(model).is_named)):
            return False
        return self._digests.get(reference.identity) != "" and self._has(remote.deployment(model), reference)

    def _has(self, one: Deployment, reference: _Reference) -> bool:
        return self._is_same(one.identity, reference.identity)

    def _is_same(self, first: str, second: str) -> bool:
        if first == second:
            return True
        digest = self._digests.get(first)
        return bool(digest) and digest == self._digests.get(second)

    def _is_read(self, identity: str) -> bool:
        return self._read_digest is None or not identity or identity in self._digests

    def _compare(self, one: Deployment, reference: _Reference) -> None:
        is_final = self._is_read(one.identity) and self._is_read(reference.identity)
        self._mark(one, self._difference(one, reference, is_final), is_final)

    def _difference(self, one: Deployment, reference: _Reference, is_final: bool) -> str | None:
        if self._has(one, reference):
            return None
        if (reference.lane == "chat") != (not one.identity):
            return _NOT_NAMED.format(f"{reference.peer}, which serves it on the {reference.lane} lane")
        if self._digests.get(one.identity) == "":
            return "its tokenizer or chat template cannot be used"
        if is_final:
            return f"its tokenizer, chat template or stop tokens differ from those of {reference.peer}"
        return f"its tokenizer, chat template and stop tokens are being compared with those of {reference.peer}"

    def _difference_from_pinned(self, one: Deployment, pinned: str) -> str | None:
        digest = self._digests.get(one.identity)
        if digest == pinned:
            return None
        if digest is None:
            return f"its card is being compared with the expected one, {pinned}"
        return f"its card is {digest or 'unusable'}, but {pinned} is expected"

    def _mark(self, one: Deployment, difference: str | None, is_final: bool) -> None:
        if difference is not None and difference != one.mismatch and is_final:
            logger.warning("node %s gets no requests for %s: %s", one.peer, one.model, difference)
        one.mismatch = difference

    def _start_reading(self, deployments: Iterable[Deployment]) -> None:
        for one in deployments:
            if self._read_digest is None or not one.identity:
                continue
            if one.identity in self._digests or one.identity in self._reading:
                continue
            if self._retry_at.get(one.identity, 0.0) > self._clock():
                self.is_stale = True
            elif one.card is not None and len(self._reading) + len(self._digests) < 2 * _MAX_CARDS:
                self._reading[one.identity] = asyncio.create_task(self._read(one.card, self._read_digest))

    async def _read(self, card: ModelCard, read_digest: DigestReader) -> None:
        identity = card.identity
        self._retry_at.pop(identity, None)
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                self._digests[identity] = await read_digest(card)
        except (NoNodeAvailable, TimeoutError):
            # Not reviewed at once, which would fetch it again without a pause. A node that sends a tokenizer slowly
            # must not make those that have the same one unusable.
            self._retry_at[identity], self.is_stale = self._clock() + _RETRY_INTERVAL, True
        except Exception as error:
            # Requests for the model fail for the same reason, which is logged then.
            logger.info("the card of model %s cannot be compared: %s", card.id, error)
            self._digests[identity] = ""
        finally:
            del self._reading[identity]
        if identity in self._digests:
            self._on_change()


def _before(remotes: Iterable[RemoteNode], peer: str) -> Iterable[RemoteNode]:
    for remote in remotes:
        if remote.peer == peer:
            return
        yield remote
