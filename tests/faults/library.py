"""User of the library that requests choices and records every delta."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from subnet import Limits, RemoteManager, Sampling, SessionManager
from subnet.generation import FinishReason, TokenLogprobs
from subnet.pool.policies.base import C, Policy

LIMITS = Limits(first_token_timeout=30.0, inter_token_timeout=30.0, queue_timeout=30.0)
"""Long timeouts: a killed node is detected by its connection, and a slow machine must not count as a fault."""


class Request(msgspec.Struct, frozen=True):
    sampling: Sampling
    choices: int = 1


class Choice(msgspec.Struct):
    tokens: list[int] = []
    logprobs: list[TokenLogprobs] = []
    reason: FinishReason | None = None


class Result(msgspec.Struct):
    """Result of a request. `order` has the choice of each token in the order received; `counted` is the session's own
    count.

    The order of tokens of different choices is not guaranteed.
    """

    choices: list[Choice]
    counted: int
    order: list[int]

    def same(self, other: Result) -> bool:
        return (self.choices, self.counted) == (other.choices, other.counted)


class Prefer(Policy):
    """Policy that uses one node as long as it is available."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def choose(self, candidates: Sequence[C], *_: object) -> C:
        return next((remote for remote in candidates if remote.peer == self._peer), candidates[0])


@asynccontextmanager
async def reaching(*addresses: str) -> AsyncIterator[RemoteManager]:
    """Yield a manager of these nodes, all of them healthy; it prefers the first."""
    async with RemoteManager(addresses, policy=Prefer(addresses[0])) as manager:
        while any(remote.unreachable_reason is not None for remote in manager.remotes):
            await asyncio.sleep(0.01)
        yield manager


async def ask(manager: RemoteManager, prompt: list[int], request: Request) -> Result:
    choices, order = [Choice() for _ in range(request.choices)], list[int]()
    async with SessionManager(manager, limits=LIMITS).session() as session:
        async for delta in session.generate(prompt, request.sampling, choices=request.choices):
            choice = choices[delta.choice]
            assert choice.reason is None
            choice.tokens += delta.tokens
            choice.logprobs += delta.logprobs or []
            choice.reason = delta.finish_reason
            order += [delta.choice] * len(delta.tokens)
    assert session.ledger is not None
    return Result(choices, session.ledger.delivered_tokens, order)
