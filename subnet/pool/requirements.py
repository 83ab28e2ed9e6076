"""What a request requires of a node, and the nodes that meet it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from subnet.chat import Endpoint
from subnet.errors import NoNodeAvailable
from subnet.generation import NO_SIZE, Needs, RequestSize, are_met
from subnet.node_info import Lane, Modality
from subnet.pool.deployment import Deployment


class Requirements(msgspec.Struct, frozen=True):
    """What a request requires of a node.

    The node must serve the model on `lane`; on the chat lane at `endpoint`, if a server has it; and with a card that is
    the same as `identity`, see ModelCard ("": the one that the model's nodes have in common). If there are such nodes,
    it must have all features in `needs`, accept the inputs in `modalities`, and have room for the request's `size`.
    Nodes with the fingerprint `weights` are preferred ("": any weights).
    """

    lane: Lane = "token"
    endpoint: Endpoint = "chat/completions"
    identity: str = ""
    needs: Needs = ()
    modalities: frozenset[Modality] = frozenset()
    size: RequestSize = NO_SIZE
    weights: str = ""

    @property
    def kind(self) -> Hashable:
        """What all requests have in common that the same nodes can take, if they have room."""
        return self.lane, self.endpoint, self.identity, self.needs, self.modalities


ANY = Requirements()
"""Requirements of a request of which nothing is known, on the token lane."""


def supporting(deployments: Sequence[Deployment], needs: Needs) -> list[Deployment]:
    """Return the deployments that have all features in `needs`, as far as is known."""
    return [one for one in deployments if are_met(needs, one.remote.capabilities)]


def accepting(deployments: Sequence[Deployment], modalities: frozenset[Modality]) -> Sequence[Deployment]:
    """Return the deployments that accept all `modalities`, or else all: not every server says what it accepts."""
    return [one for one in deployments if one.card and modalities.issubset(one.card.modalities)] or deployments


def with_room(deployments: Sequence[Deployment], size: RequestSize) -> Sequence[Deployment]:
    """Return the deployments whose context has room for the whole request, or else for one new token.

    If there are none, all of them, which judge a new request themselves. Raises NoNodeAvailable if they would end an
    answer that has begun.
    """
    if size is NO_SIZE:
        return deployments
    used = size.prompt + size.delivered
    for tokens in (used + size.requested, used + 1):
        if found := [one for one in deployments if tokens <= one.context_length]:
            return found
    if size.delivered:
        raise NoNodeAvailable(f"No node with a context of more than {used} tokens serves the model now.")
    return deployments


def with_weights(deployments: Sequence[Deployment], weights: str) -> Sequence[Deployment]:
    """Return the deployments whose weights are the same as far as is known, or else all."""
    if not weights:
        return deployments
    return [one for one in deployments if one.weights in (weights, "")] or deployments
