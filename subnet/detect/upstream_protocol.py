"""Node whose type of server is detected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink
from subnet.authorizers import AuthorizerBase
from subnet.chat import ChatDelta, ChatRequest, ChatUsage, EmbeddingsRequest, EmbeddingsResponse
from subnet.detect.watcher import Report, Watcher
from subnet.errors import NodeLost
from subnet.generation import Delta, TokenLogprobs
from subnet.http.node_spec import NodeSpec
from subnet.node_info import NodeInfo, Placement
from subnet.protocols.base import NO_TIMEOUTS, Protocol, Timeouts
from subnet.tensors import TokenIds
from subnet.wire.messages import Generate


class UpstreamProtocol(Protocol):
    """Server at `spec.url`, of any type.

    The type is detected during the first health check, and again after a failure, because another server may be at the
    address by then. `report` receives one line when a server is detected, when it is replaced by another, and when the
    first detection fails. `authorizer` is for subnet nodes. `checked` is set after the first health check, successful
    or not.
    """

    def __init__(
        self,
        spec: NodeSpec,
        authorizer: AuthorizerBase | None = None,
        report: Report = lambda line: None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.spec = spec
        self.checked = asyncio.Event()
        self.peer = spec.peer
        own = Timeouts(spec.first_token_timeout, spec.inter_token_timeout, spec.attempt_timeout)
        self.timeouts = own if own != NO_TIMEOUTS else NO_TIMEOUTS
        self._watcher = Watcher(spec, authorizer, report, clock)
        self._detection: asyncio.Task[None] | None = None
        self._healthy = False

    @property
    def last_received(self) -> float:
        node = self._watcher.node
        return 0.0 if node is None else node.protocol.last_received

    def placement(self, model: str) -> Placement:
        return self.spec.placement(model)

    async def rpc_info(self) -> NodeInfo:
        try:
            if not self._healthy:
                await self._detect()
            inner = self._inner
            self._healthy = False
            info = await inner.rpc_info()
            self._healthy = self._watcher.certain
            return info
        finally:
            self.checked.set()

    async def rpc_artefact(self, sha256: str) -> bytes:
        return await self._inner.rpc_artefact(sha256)

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        return await self._inner.rpc_embed(inputs, model)

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        return await self._inner.rpc_score(tokens, width, model)

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        return await self._inner.rpc_tokenize(texts, sha256)

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        return self._inner.rpc_inference_stream(request)

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        with self._rechecked():
            await self._inner.rpc_inference(request, emit, authorizer)

    async def rpc_chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        with self._rechecked():
            return await self._inner.rpc_chat(request, emit)

    async def rpc_embeddings(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        with self._rechecked():
            return await self._inner.rpc_embeddings(request)

    async def aclose(self) -> None:
        detection, self._detection = self._detection, None
        if detection is not None:
            detection.cancel()
            await asyncio.gather(detection, return_exceptions=True)
        await self._watcher.aclose()

    @property
    def _inner(self) -> Protocol:
        if self._watcher.node is None:
            raise NodeLost(f"{self.peer} has not been reached yet")
        return self._watcher.node.protocol

    @contextmanager
    def _rechecked(self) -> Iterator[None]:
        """Detect a lost server again in the next health check, because another may have replaced it."""
        try:
            yield
        except NodeLost:
            self._healthy = False
            raise

    async def _detect(self) -> None:
        """Wait for the detection. It continues if the caller is cancelled, and the next caller waits for it."""
        if self._detection is None or self._detection.done():
            self._detection = asyncio.create_task(self._watcher.detect())
            self._detection.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._detection)
