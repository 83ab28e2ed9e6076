"""Session: runs one generation at a time, on nodes that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from subnet.aio import Sink, stream_from_callback
from subnet.authorizers import AuthorizerBase
from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.client.attempt.chat import ChatAttempt
from subnet.client.attempt.token import TokenAttempt
from subnet.client.deadline import IdleDeadline
from subnet.client.failover import AttemptFactory, Failover
from subnet.client.ledger.base import D, Ledger
from subnet.client.ledger.chat import ChatLedger
from subnet.client.ledger.token import TokenLedger
from subnet.client.race import Hedger
from subnet.client.request_state import RequestState
from subnet.client.request_validation import validate_encoding, validate_prompt, validate_sampling
from subnet.client.suspects import SuspectRequests
from subnet.client.timeouts import Limits
from subnet.errors import SessionClosed
from subnet.generation import Delta, Sampling
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.tensors import TokenIds

# Of sessions that are closed.
_NO_STATE = RequestState()


class Session:
    """Client session for one generation at a time, on any number of nodes. Use it with `async with`, or call close().

    `model` None: any model. Sessions with the same `key` use the same node if the policy supports it. A lower
    `priority` number goes first when all nodes are at capacity. `state` is shared with other sessions of the same
    request, see RequestState. `identity` is that of the card for which prompts are made, see
    ModelCard: nodes that differ from it are not used. `authorizer` defaults to the manager's. `ledger` is the ledger of
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
        state: RequestState | None = None,
        limits: Limits | None = None,
        hedger: Hedger | None = None,
        suspects: SuspectRequests | None = None,
        identity: str = "",
    ) -> None:
        self.ledger: Ledger[Any] | None = None
        self._manager = remote_manager
        self._authorizer = authorizer or remote_manager.authorizer
        self._model = model
        self._identity = identity
        self._key = key
        self._priority = priority
        self._state = state or RequestState()
        self._limits = limits or Limits()
        self._hedger = hedger or Hedger()
        self._suspects = SuspectRequests() if suspects is None else suspects
        self._deadline: IdleDeadline | None = None
        self._finished: asyncio.Event | None = None
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
        """Generate like `run`, but yield the deltas. Closing the generator cancels the work on the node."""
        producer = partial(self.run, prompt, sampling, choices=choices, text=text)
        async with aclosing(stream_from_callback(producer)) as deltas:
            async for delta in deltas:
                yield delta
                if self._closed:
                    raise SessionClosed("the session was closed")

    async def run(
        self,
        prompt: ArrayLike,
        sampling: Sampling | None,
        emit: Sink[Delta],
        *,
        choices: int = 1,
        text: str | None = None,
        room: int | None = None,
    ) -> None:
        """Generate `choices` answers to `prompt` (one-dimensional token ids), whose text is `text`.

        A node must have room for `room` new tokens (None: for max_tokens), if there is such a node.

        Calls `emit` with each delta as it arrives, without a task switch; the last delta of each choice has a
        finish_reason. Cancelling the call cancels the work on the node. An error raised by `emit` does so too, and is
        raised here; `emit` must not raise a NodeError, which would count as a failure of the node.

        Raises InvalidRequest or ContextLengthExceeded if no node can handle the request, NoNodeAvailable or the last
        NodeError after the last attempt, RepeatedFailure if it may have brought down two nodes, AnswerTimeout if the
        answer is not complete in time, and SessionClosed if the session is closed meanwhile.
        """
        self._check_idle()
        sampling = sampling or Sampling()
        validate_sampling(sampling, choices)
        ledger = TokenLedger(self._model, validate_prompt(prompt), sampling, choices, text, self._key, room)
        validate_encoding(ledger)

        def create_attempt(lease: Lease, max_choices: int) -> TokenAttempt:
            return TokenAttempt(lease, ledger, self._authorizer, max_choices)

        await self._run(ledger, create_attempt, emit)

    async def chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage:
        """Generate the answer to a conversation on the chat lane. Returns the usage, estimated if no node reports it.

        Otherwise like `run`. Raises Diverged, a NodeError, if no other node can repeat or continue an interrupted
        answer.
        """
        self._check_idle()
        ledger = ChatLedger(request, self._key)

        def create_attempt(lease: Lease, max_choices: int) -> ChatAttempt:
            return ChatAttempt(lease, ledger, max_choices)

        await self._run(ledger, create_attempt, emit)
        return ledger.usage

    async def close(self) -> None:
        """Cancel a running generation and close the session. Safe to call twice."""
        self._closed = True
        # Its function may be a bound method of the session's owner, which makes a reference cycle.
        self._state = _NO_STATE
        if self._deadline is not None:
            self._deadline.abort(SessionClosed("the session was closed"))
            self._finished = self._finished or asyncio.Event()
            await self._finished.wait()

    def _check_idle(self) -> None:
        if self._closed or self._deadline is not None:
            raise SessionClosed("the session is closed" if self._closed else "the session is already generating")

    async def _run(self, ledger: Ledger[D], create_attempt: AttemptFactory[D], emit: Sink[D]) -> None:
        self.ledger = ledger
        if ledger.lane == "token":
            ledger.identity = self._identity
        started = monotonic() if self._state.started is None else self._state.started
        self._deadline = IdleDeadline(started, self._limits.answer_timeout)
        failover = Failover(
            ledger,
            create_attempt,
            emit,
            manager=self._manager,
            limits=self._limits,
            hedger=self._hedger,
            deadline=self._deadline,
            suspects=self._suspects,
            state=self._state,
        )
        try:
            await failover.run(self._priority)
        finally:
            self._deadline.close()
            self._deadline = None
            if self._finished is not None:
                self._finished.set()
            self._manager.wait_queue.notify(self._model)
