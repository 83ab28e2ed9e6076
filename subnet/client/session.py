"""One stateful generation over nodes that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from subnet.aio import stream_from_callback
from subnet.authorizers import AuthorizerBase
from subnet.chat import ChatRequest, ChatUsage, EmitChat
from subnet.client.attempt.chat import ChatAttempt
from subnet.client.attempt.token import TokenAttempt
from subnet.client.deadline import IdleDeadline
from subnet.client.failover import Delivery, Try
from subnet.client.ledger.base import D, Ledger, Take
from subnet.client.ledger.chat import ChatLedger
from subnet.client.ledger.token import TokenLedger
from subnet.client.race import Hedger
from subnet.client.timeouts import Limits
from subnet.client.validation import check_sampling, check_travels, checked_prompt
from subnet.errors import SessionClosed
from subnet.generation import Delta, Sampling
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.protocols.base import Emit
from subnet.wire.tensors import TokenIds


class Session:
    """One interaction with the subnet, which may use several nodes. Use it with `async with`, or call close().

    `model` None: any model. Sessions with the same `key` use the same node if the policy supports it. A lower
    `priority` number goes first when all nodes are at capacity. While `may_queue` returns False, the session waits
    neither for capacity nor for nodes to come back. `authorizer` defaults to the manager's. `ledger` is the ledger of
    the last generation, None before the first.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        authorizer: AuthorizerBase | None = None,
        *,
        model: str | None = None,
        key: str | None = None,
        priority: int = 0,
        may_queue: Callable[[], bool] = lambda: True,
        limits: Limits | None = None,
        hedger: Hedger | None = None,
    ) -> None:
        self.ledger: Ledger[Any] | None = None
        self._manager = remote_manager
        self._authorizer = authorizer or remote_manager.authorizer
        self._model = model
        self._key = key
        self._priority = priority
        self._may_queue = may_queue
        self._limits = limits or Limits()
        self._hedger = hedger or Hedger()
        self._deadline: IdleDeadline | None = None
        self._over: asyncio.Event | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run_protocol_task(self, prompt: str, tensor: ArrayLike) -> AsyncGenerator[TokenIds, None]:
        """Generate from `tensor` (one-dimensional token ids), whose text is `prompt`, with default sampling.

        Yields one-dimensional int32 arrays of new token ids as they arrive; `tensor` is copied and never modified.
        Raises the same errors as `run`.
        """
        async with aclosing(self.generate(tensor, text=prompt)) as deltas:
            async for delta in deltas:
                if delta.tokens:
                    yield np.array(delta.tokens, np.int32)

    async def generate(
        self, prompt: ArrayLike, sampling: Sampling | None = None, *, choices: int = 1, text: str | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Like `run`, but yields the deltas. Closing the generator cancels the work on the node."""
        push = partial(self.run, prompt, sampling, choices=choices, text=text)
        async with aclosing(stream_from_callback(push)) as deltas:
            async for delta in deltas:
                yield delta
                if self._closed:
                    raise SessionClosed("the session was closed")

    async def run(
        self,
        prompt: ArrayLike,
        sampling: Sampling | None,
        emit: Emit,
        *,
        choices: int = 1,
        text: str | None = None,
    ) -> None:
        """Generate `choices` answers to `prompt` (one-dimensional token ids), whose text is `text`.

        Calls `emit` with each delta as it arrives, without a task switch; the last delta of each choice has a
        finish_reason. Cancelling the call cancels the work on the node. An error raised by `emit` does so too, and is
        raised here; `emit` must not raise a NodeError, which would count as a failure of the node.

        Raises InvalidRequest or ContextLengthExceeded if no node can handle the request, NoNodeAvailable or the last
        NodeError after the last attempt, and SessionClosed if the session is closed meanwhile.
        """
        self._check_free()
        sampling = sampling or Sampling()
        check_sampling(sampling, choices)
        ledger = TokenLedger(self._model, checked_prompt(prompt), sampling, choices, text, self._key)
        check_travels(ledger)

        def attempt(lease: Lease, most: int) -> TokenAttempt:
            return TokenAttempt(lease, ledger, self._authorizer, most)

        await self._deliver(ledger, attempt, emit)

    async def chat(self, request: ChatRequest, emit: EmitChat) -> ChatUsage:
        """Answer a conversation on the chat lane. Returns the usage, estimated if no node reports it.

        Otherwise like `run`. Raises Diverged, a NodeError, if no other node can repeat or continue an interrupted
        answer.
        """
        self._check_free()
        ledger = ChatLedger(request, self._key)

        def attempt(lease: Lease, most: int) -> ChatAttempt:
            return ChatAttempt(lease, ledger, most)

        await self._deliver(ledger, attempt, emit)
        return ledger.usage

    async def close(self) -> None:
        """Cancel a running generation and close the session. Safe to call twice."""
        self._closed = True
        # It may belong to who holds this session: a cycle otherwise.
        self._may_queue = _always
        if self._deadline is not None:
            self._deadline.abort(SessionClosed("the session was closed"))
            self._over = self._over or asyncio.Event()
            await self._over.wait()

    def _check_free(self) -> None:
        if self._closed or self._deadline is not None:
            raise SessionClosed("the session is closed" if self._closed else "the session is already generating")

    async def _deliver(self, ledger: Ledger[D], attempt: Try[D], emit: Take[D]) -> None:
        self.ledger = ledger
        self._deadline = IdleDeadline()
        delivery = Delivery(
            ledger,
            attempt,
            emit,
            manager=self._manager,
            limits=self._limits,
            hedger=self._hedger,
            deadline=self._deadline,
            may_queue=self._may_queue,
        )
        try:
            await delivery.run(self._priority)
        finally:
            self._deadline.close()
            self._deadline = None
            if self._over is not None:
                self._over.set()
            self._manager.wait_queue.notify(self._model)


def _always() -> bool:
    return True
