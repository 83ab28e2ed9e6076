"""Texts that nodes read and do not go on with: for their embeddings, and for how likely each of their tokens is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet.client.retry import Retry
from subnet.client.timeouts import Limits
from subnet.errors import InvalidRequest, NodeBusy, NodeError, NodeTimeout, NoNodeAvailable
from subnet.generation import TokenLogprobs
from subnet.node_info import Capabilities
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.pool.policies.base import RoutingHint
from subnet.pool.wait_queue import Ticket
from subnet.protocols.base import Protocol
from subnet.wire.tensors import TokenIds

T = TypeVar("T")


class TextReader:
    """Asks the nodes of `model` that can do it, one after another, until one answers.

    Its methods raise InvalidRequest where no node of the model can, ContextLengthExceeded, and NoNodeAvailable or the
    last NodeError when attempts are spent. Cancelling a call ends the work on the node. A node may take as long for a
    text as for the first token after it. The smaller the `priority`, the sooner it gets room on nodes that are full.
    """

    def __init__(
        self, remote_manager: RemoteManager, model: str, limits: Limits | None = None, *, priority: int = 0
    ) -> None:
        self._manager = remote_manager
        self._model = model
        self._priority = priority
        self._limits = limits or Limits()

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        """An embedding of length 1 for each text: float32, shape (len(inputs), dimensions)."""
        refusal = InvalidRequest(f"The model '{self._model}' does not support embeddings.", param="model")
        count = sum(len(text) for text in inputs)

        async def read(node: Protocol) -> NDArray[np.float32]:
            return await node.rpc_embed(inputs, self._model)

        return await self._ask(read, lambda can: can.embeddings, count, RoutingHint(), refusal)

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        """How likely each token but the first is after those before it, with the `width` likeliest in its place."""
        refusal = InvalidRequest(
            f"The model '{self._model}' does not support the requested prompt logprobs.", param="logprobs"
        )

        async def read(node: Protocol) -> list[TokenLogprobs]:
            return await node.rpc_score(tokens, width, self._model)

        def able(can: Capabilities) -> bool:
            return can.prompt_logprobs and can.top_logprobs >= width

        return await self._ask(read, able, len(tokens), RoutingHint(tokens), refusal)

    async def _ask(
        self,
        read: Callable[[Protocol], Awaitable[T]],
        able: Callable[[Capabilities], bool],
        count: int,
        hint: RoutingHint,
        refusal: InvalidRequest,
    ) -> T:
        retry = Retry(self._limits)
        within = self._limits.first_token_within(count)
        ticket = self._manager.wait_queue.ticket(self._model, self._priority)
        while True:
            lease = await self._lease(able, hint, retry, ticket, refusal)
            try:
                return await _answer(lease, read, within)
            except NodeError as error:
                lease.failed(error)
                pause = retry.failed(error, lease.remote.peer)
            except BaseException:
                lease.abandoned()
                raise
            finally:
                self._manager.wait_queue.notify(self._model)
            await asyncio.sleep(pause)

    async def _lease(
        self,
        able: Callable[[Capabilities], bool],
        hint: RoutingHint,
        retry: Retry,
        ticket: Ticket,
        refusal: InvalidRequest,
    ) -> Lease:
        with ticket:
            while True:
                unable = self._unable(able, refusal)
                try:
                    ticket.check()
                    return self._able_lease(unable, retry.excluded, hint)
                except (NoNodeAvailable, NodeBusy) as error:
                    pause = retry.waited(error)
                await ticket.wait(pause)

    def _able_lease(self, unable: set[str], failed: set[str], hint: RoutingHint) -> Lease:
        """On a node that did not fail, if possible."""
        for excluded in (unable | failed, unable):
            lease = self._manager.lease(self._model, excluded, hint)
            if lease.remote.peer not in unable:
                return lease
            lease.abandoned()
        raise NodeBusy("all nodes that support this request are at capacity", retry_after=1.0)

    def _unable(self, able: Callable[[Capabilities], bool], refusal: InvalidRequest) -> set[str]:
        """The peers of the model that cannot do it. Raises `refusal` where some serve the model and none can."""
        can = {
            remote.peer: able(remote.info.capabilities)
            for remote in self._manager.remotes
            if remote.info is not None and remote.unreachable_reason is None and remote.serves(self._model)
        }
        if can and not any(can.values()):
            raise refusal
        return {peer for peer, is_able in can.items() if not is_able}


async def _answer(lease: Lease, read: Callable[[Protocol], Awaitable[T]], within: float) -> T:
    try:
        async with asyncio.timeout(within):
            found = await read(lease.remote.protocol)
    except TimeoutError as error:
        message = f"{lease.remote.peer} did not process a text within {within:.1f} s (first_token_timeout)"
        raise NodeTimeout(message) from error
    lease.first_token_received()
    lease.succeeded()
    return found
