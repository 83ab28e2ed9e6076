"""Comparison of the cards that nodes declare for one model: nodes that differ must not serve the same requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from subnet.errors import NoNodeAvailable
from subnet.node_info import ModelCard
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
# Seconds for which a reference whose last node is unreachable waits for it: a short outage must not replace it.
_GRACE_PERIOD = 5.0


class _Reference(msgspec.Struct):
    """Card that the nodes of a model must match: that of the node `peer`.

    `unchecked` are the nodes before it in the table whose first health check had no result when it was chosen.
    `lost_at` is the time since which no healthy node has it; None if one has.
    """

    peer: str
    identity: str
    unchecked: set[str]
    lost_at: float | None = None


class CardComparison:
    """Decides which nodes of a model serve the same thing on the token lane, and marks the others as mismatched.

    The reference of a model is the card whose digest is in `pinned`, else that of the first healthy node in the order
    of the table whose card can be used. It stays the reference as long as a healthy node has it, and a few seconds
    longer if the last one is unreachable. Cards are the same if they are equal, or if `read_digest` returns the same
    for them; while a card is being compared, its nodes get no requests. `on_change` is called when a card was read.
    `is_stale`: there is something to review at the next health check even if no node has changed.
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
        """Choose the references, and set `mismatch` of all deployments on the token lane; `remotes` is the table."""
        self.is_stale = False
        unchecked = {remote.peer for remote in remotes if not remote.checked}
        models: dict[str, list[Deployment]] = {}
        for remote in remotes:
            if remote.unreachable_reason is None and remote.info is not None and not remote.info.draining:
                for card in remote.info.cards:
                    if card.lane == "token":
                        models.setdefault(card.id, []).append(remote.deployment(card.id))
        self._forget_unserved(models)
        for model, deployments in models.items():
            self._start_reading(deployments)
            self._review_model(model, deployments, remotes, unchecked)

    def _forget_unserved(self, models: Mapping[str, Sequence[Deployment]]) -> None:
        """Bound what is remembered, as names and cards are what nodes say."""
        if len(self._references) > _MAX_CARDS:
            self._references = {name: one for name, one in self._references.items() if name in models}
        if len(self._digests) > _MAX_CARDS:
            served = {one.identity for deployments in models.values() for one in deployments}
            self._digests = {name: one for name, one in self._digests.items() if name in served}
        if len(self._retry_at) > _MAX_CARDS:
            self._retry_at.clear()

    def _review_model(
        self, model: str, deployments: Sequence[Deployment], remotes: Iterable[RemoteNode], unchecked: set[str]
    ) -> None:
        if (pinned := self._pinned.get(model)) is not None:
            for one in deployments:
                self._mark(one, self._difference_from_pinned(one, pinned), self._is_read(one.identity))
            return
        reference = self._references.get(model)
        usable = [one for one in deployments if self._digests.get(one.identity) != ""] or deployments
        if reference is None or not self._holds(reference, usable, remotes, unchecked):
            first = usable[0]
            earlier = {remote.peer for remote in _before(remotes, first.peer)}
            if reference is not None and not self._is_same(first.identity, reference.identity):
                logger.warning("model %s: the card of %s is the reference now", model, first.peer)
            reference = self._references[model] = _Reference(first.peer, first.identity, earlier & unchecked)
        for one in deployments:
            is_final = self._is_read(one.identity) and self._is_read(reference.identity)
            self._mark(one, self._difference(one, reference, is_final), is_final)

    def _holds(
        self,
        reference: _Reference,
        deployments: Sequence[Deployment],
        remotes: Iterable[RemoteNode],
        unchecked: set[str],
    ) -> bool:
        """Return whether a reference stays. It does not if a node before it has its first health check only now."""
        first = deployments[0]
        if first.peer in reference.unchecked and not self._is_same(first.identity, reference.identity):
            return False
        reference.unchecked &= unchecked
        if any(self._is_same(one.identity, reference.identity) for one in deployments):
            reference.lost_at = None
            return True
        if not any(self._may_return(remote, first.model, reference.identity) for remote in remotes):
            return False
        now, self.is_stale = self._clock(), True
        reference.lost_at = now if reference.lost_at is None else reference.lost_at
        return now - reference.lost_at < _GRACE_PERIOD

    def _may_return(self, remote: RemoteNode, model: str, identity: str) -> bool:
        """Return whether an unreachable node had the card `identity`, which can be used, and did not mean to leave."""
        if remote.unreachable_reason is None or not remote.serves(model, "token"):
            return False
        return self._digests.get(identity) != "" and self._is_same(remote.deployment(model).identity, identity)

    def _is_same(self, first: str, second: str) -> bool:
        if first == second:
            return True
        digest = self._digests.get(first)
        return bool(digest) and digest == self._digests.get(second)

    def _is_read(self, identity: str) -> bool:
        return self._read_digest is None or identity in self._digests

    def _difference(self, one: Deployment, reference: _Reference, is_final: bool) -> str | None:
        if self._is_same(one.identity, reference.identity):
            return None
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
            if self._read_digest is None or one.identity in self._digests or one.identity in self._reading:
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
        except NoNodeAvailable:
            # Not reviewed at once, which would fetch it again without a pause.
            self._retry_at[identity], self.is_stale = self._clock() + _RETRY_INTERVAL, True
        except Exception as error:
            # Requests for the model fail for the same reason, which is logged then.
            logger.info("the card of model %s cannot be compared: %s", card.id, error or "timed out")
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
