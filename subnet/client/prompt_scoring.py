"""Requests that evaluate a prompt without generating: embeddings and prompt logprobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet.client.retry import Retry
from subnet.client.timeouts import Limits
from subnet.errors import InvalidRequest, NodeBusy, NodeError, NodeTimeout, NoNodeAvailable
from subnet.generation import Need, Needs, TokenLogprobs, are_met
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.pool.policies.base import RoutingHint
from subnet.pool.requirements import Requirements
from subnet.pool.wait_queue import Ticket
from subnet.protocols.base import Protocol
from subnet.tensors import TokenIds

T = TypeVar("T")


class PromptEvaluator:
    """Computes embeddings and prompt logprobs on the nodes of `model` that support them, with retries.

    The methods raise InvalidRequest if no node of the model supports the request, ContextLengthExceeded, and
    NoNodeAvailable or the last NodeError after the last attempt. Cancelling a call cancels the work on the node. The
    timeout is that for the first token after a prompt of the same length. `identity` is as for a Session. A lower
    `priority` number goes first when all nodes are at capacity. `nodes` and `peers` are the names and addresses of the
    nodes used so far, in order; nothing is replayed.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        model: str,
        limits: Limits | None = None,
        *,
        priority: int = 0,
        identity: str = "",
    ) -> None:
        self._manager = remote_manager
        self._model = model
        self._priority = priority
        self._identity = identity
        self._limits = limits or Limits()
        self.nodes: list[str] = []
        self.peers: list[str] = []
        self.replayed_tokens = 0
        self.diverged = False

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Return a unit-length embedding of each input: float32, shape (len(inputs), dimensions)."""
        unsupported = InvalidRequest(f"The model '{self._model}' does not support embeddings.", param="model")
        count = sum(len(text) for text in inputs)

        async def call(node: Protocol) -> NDArray[np.float32]:
            return await node.rpc_embed(inputs, self._model)

        needs = (Need("model", "embeddings"),)
        return await self._run(call, needs, count, RoutingHint(), unsupported)

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        """Return the logprobs of each token but the first, and of the `width` most likely tokens in its place."""
        unsupported = InvalidRequest(
            f"The model '{self._model}' does not support the requested prompt logprobs.", param="logprobs"
        )

        async def call(node: Protocol) -> list[TokenLogprobs]:
            return await node.rpc_score(tokens, width, self._model)

        needs = (Need("logprobs", "prompt_logprobs"), Need("logprobs", "top_logprobs", width))
        return await self._run(call, needs, len(tokens), RoutingHint(tokens), unsupported)

    async def _run(
        self,
        call: Callable[[Protocol], Awaitable[T]],
        needs: Needs,
        prompt_tokens: int,
        hint: RoutingHint,
        unsupported: InvalidRequest,
    ) -> T:
        retry = Retry(self._limits)
        seconds = self._limits.first_token_timeout_for(prompt_tokens)
        ticket = self._manager.wait_queue.ticket(self._model, self._priority, needs)
        while True:
            lease = await self._acquire_lease(needs, hint, retry, ticket, unsupported)
            self.nodes.append(lease.remote.name)
            self.peers.append(lease.remote.peer)
            try:
                return await _call_node(lease, call, seconds)
            except NodeError as error:
                lease.failed(error)
                pause = retry.on_failure(error, lease.remote.peer)
            except BaseException:
                lease.abandoned()
                raise
            finally:
                self._manager.wait_queue.notify(self._model)
            await asyncio.sleep(pause)

    async def _acquire_lease(
        self,
        needs: Needs,
        hint: RoutingHint,
        retry: Retry,
        ticket: Ticket,
        unsupported: InvalidRequest,
    ) -> Lease:
        with ticket:
            while True:
                try:
                    ticket.check()
                    requirements = Requirements(identity=self._identity, needs=needs)
                    lease = self._manager.lease(
                        self._model, retry.excluded, hint, requirements, retry.failed_deployments
                    )
                    break
                except (NoNodeAvailable, NodeBusy) as error:
                    pause = retry.on_unavailable(error)
                await ticket.wait(pause)
        if not are_met(needs, lease.remote.capabilities):
            lease.abandoned()
            raise unsupported
        return lease


async def _call_node(lease: Lease, call: Callable[[Protocol], Awaitable[T]], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            result = await call(lease.remote.protocol)
    except TimeoutError as error:
        message = f"{lease.remote.peer} did not process a text within {seconds:.1f} s (first_token_timeout)"
        raise NodeTimeout(message) from error
    lease.first_token_received()
    lease.succeeded()
    return result
