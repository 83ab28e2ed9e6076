"""A user of the library who looks closely: asks for some choices and keeps all of every delta."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from subnet import Limits, RemoteManager, Sampling, SessionManager
from subnet.generation import FinishReason, TokenLogprobs
from subnet.pool.policies.base import C, Policy

LIMITS = Limits(first_token_timeout=30.0, inter_token_timeout=30.0, queue_timeout=30.0)
"""A killed node is noticed by its connection; a slow machine is no fault."""


class Wish(msgspec.Struct, frozen=True):
    sampling: Sampling
    choices: int = 1


class Choice(msgspec.Struct):
    tokens: list[int] = []
    logprobs: list[TokenLogprobs] = []
    reason: FinishReason | None = None


class Told(msgspec.Struct):
    """What came of a wish. `order` has, for each token as it came, its choice; `counted` is how many the session says.

    Where two choices are written at once, their order is nobody's promise.
    """

    choices: list[Choice]
    counted: int
    order: list[int]

    def same(self, other: Told) -> bool:
        return (self.choices, self.counted) == (other.choices, other.counted)


class Prefer(Policy):
    """One node as long as it is there."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def choose(self, candidates: Sequence[C], *_: object) -> C:
        return next((remote for remote in candidates if remote.peer == self._peer), candidates[0])


@asynccontextmanager
async def reaching(*addresses: str) -> AsyncIterator[RemoteManager]:
    """A table of these nodes, all of them there; it prefers the first."""
    async with RemoteManager(addresses, policy=Prefer(addresses[0])) as manager:
        while any(remote.unreachable_reason is not None for remote in manager.remotes):
            await asyncio.sleep(0.01)
        yield manager


async def ask(manager: RemoteManager, prompt: list[int], wish: Wish) -> Told:
    choices, order = [Choice() for _ in range(wish.choices)], list[int]()
    async with SessionManager(manager, limits=LIMITS).session() as session:
        async for delta in session.generate(prompt, wish.sampling, choices=wish.choices):
            choice = choices[delta.choice]
            assert choice.reason is None
            choice.tokens += delta.tokens
            choice.logprobs += delta.logprobs or []
            choice.reason = delta.finish_reason
            order += [delta.choice] * len(delta.tokens)
    assert session.ledger is not None
    return Told(choices, session.ledger.delivered_tokens, order)
