"""Requests that evaluate a prompt without generating: embeddings and prompt logprobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from subnet.chat import EmbeddingsRequest, EmbeddingsResponse
from subnet.client.refusals import Refusals
from subnet.client.request_state import RequestState
from subnet.client.retry import Retry
from subnet.client.timeouts import Limits
from subnet.errors import InvalidRequest, NodeBusy, NodeError, NodeTimeout, NoNodeAvailable, RequestError
from subnet.generation import Need, RequestSize, TokenLogprobs, are_met
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.pool.policies.base import RoutingHint
from subnet.pool.requirements import Requirements
from subnet.pool.wait_queue import Ticket
from subnet.protocols.base import Protocol
from subnet.tensors import TokenIds

T = TypeVar("T")

# Approximation, for the timeout of a text whose tokens are not known.
_BYTES_PER_TOKEN = 4


class _Task(msgspec.Struct, Generic[T], frozen=True):
    """What to `call` on a node that meets the `requirements`. `unsupported` is raised if no node has the features that
    it needs. `tokens` is the length of the prompts, and `content` are the bytes that tell it from other requests.
    """

    call: Callable[[Protocol], Awaitable[T]]
    tokens: int
    requirements: Requirements
    content: bytes
    unsupported: InvalidRequest | None = None
    hint: RoutingHint = RoutingHint()


class PromptEvaluator:
    """Computes embeddings and prompt logprobs on the nodes of `model` that support them, with retries.

    The methods raise InvalidRequest if no node of the model supports the request, ContextLengthExceeded, and
    NoNodeAvailable or the last NodeError after the last attempt. Cancelling a call cancels the work on the node. The
    timeout is that for the first token after a prompt of the same length. A lower `priority` number goes first when all
    nodes are at capacity; for `state` and `identity` see Session. `nodes` and `peers` are the names and addresses
    of the nodes used so far, in order; nothing is replayed.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        model: str,
        limits: Limits | None = None,
        *,
        priority: int = 0,
        state: RequestState | None = None,
        identity: str = "",
    ) -> None:
        self._manager = remote_manager
        self._model = model
        self._priority = priority
        self._identity = identity
        self._state = state
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

        longest = max((len(text) for text in inputs), default=0)
        requirements = self._requirements(longest, Need("model", "embeddings"))
        content = b"".join(text.tobytes() for text in inputs)
        return await self._run(_Task(call, count, requirements, content, unsupported))

    async def request_embeddings(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Return the response of a server on the chat lane. Raises EndpointMissing if none has embeddings."""

        async def call(node: Protocol) -> EmbeddingsResponse:
            return await node.rpc_embeddings(request)

        given = msgspec.json.encode(request.body)
        tokens, hint = len(given) // _BYTES_PER_TOKEN, RoutingHint.of_text(given)
        return await self._run(_Task(call, tokens, Requirements("chat", "embeddings"), given, hint=hint))

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        """Return the logprobs of each token but the first, and of the `width` most likely tokens in its place."""
        unsupported = InvalidRequest(
            f"The model '{self._model}' does not support the requested prompt logprobs.", param="logprobs"
        )

        async def call(node: Protocol) -> list[TokenLogprobs]:
            return await node.rpc_score(tokens, width, self._model)

        needs = Need("logprobs", "prompt_logprobs"), Need("logprobs", "top_logprobs", width)
        requirements = self._requirements(len(tokens), *needs)
        task = _Task(call, len(tokens), requirements, tokens.tobytes(), unsupported, RoutingHint(tokens))
        return await self._run(task)

    def _requirements(self, tokens: int, *needs: Need) -> Requirements:
        """Return the requirements of a text of that length on the token lane."""
        # `with_room` asks for one token more than the prompt.
        return Requirements(identity=self._identity, needs=needs, size=RequestSize(tokens - 1))

    async def _run(self, task: _Task[T]) -> T:
        retry, refusals = Retry(self._limits, self._state), Refusals()
        ticket = self._manager.wait_queue.ticket(self._model, self._priority, task.requirements.kind)
        try:
            while True:
                lease = await self._acquire_lease(task, retry, ticket)
                limits = self._limits.for_node(lease.remote, task.requirements.lane)
                self.nodes.append(lease.remote.name)
                self.peers.append(lease.remote.peer)
                try:
                    result = await _call_node(lease, task.call, limits.first_token_timeout_for(task.tokens))
                    if refusals:
                        refusals.on_success(lease, sha256(task.content).digest())
                    return result
                except RequestError as error:
                    lease.abandoned()
                    if task.requirements.lane == "chat":
                        raise
                    has_other = self._has_other(task, retry, lease)
                    refusals.on_refusal(error, lease, task.requirements, has_other=has_other)
                    retry.excluded.add(lease.remote.peer)
                    pause = 0.0
                except NodeError as error:
                    lease.failed(error)
                    pause = self._pause(task, retry, lease, error)
                except BaseException:
                    lease.abandoned()
                    raise
                finally:
                    self._manager.wait_queue.notify(self._model)
                await asyncio.sleep(pause)
        finally:
            retry.close()

    def _pause(self, task: _Task[T], retry: Retry, lease: Lease, error: NodeError) -> float:
        """Return the seconds to wait before the next attempt. Raises `error` if there must be none."""
        return retry.on_failure(error, lease.remote.peer, has_other=self._has_other(task, retry, lease))

    def _has_other(self, task: _Task[T], retry: Retry, lease: Lease) -> bool:
        tried = {*retry.excluded, lease.remote.peer}
        return self._manager.has_other(self._model, tried, task.requirements)

    async def _acquire_lease(self, task: _Task[T], retry: Retry, ticket: Ticket) -> Lease:
        with ticket:
            while True:
                try:
                    ticket.check()
                    lease = self._manager.lease(
                        self._model, retry.excluded, task.hint, task.requirements, retry.failed_deployments
                    )
                    break
                except (NoNodeAvailable, NodeBusy) as error:
                    pause = retry.on_unavailable(error)
                await ticket.wait(pause)
        if task.unsupported is not None and not are_met(task.requirements.needs, lease.remote.capabilities):
            lease.abandoned()
            raise task.unsupported
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
