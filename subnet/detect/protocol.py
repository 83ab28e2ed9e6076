"""A server of whichever kind, as a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from subnet.authorizers import AuthorizerBase
from subnet.chat import ChatRequest, ChatUsage, EmitChat
from subnet.detect.watcher import Finder, Report
from subnet.errors import NodeLost
from subnet.generation import Delta, TokenLogprobs
from subnet.http.node_spec import NodeSpec
from subnet.node_info import NodeInfo
from subnet.protocols.base import NONE, Check, Emit, Protocol, Timeouts
from subnet.wire.messages import Accepted, Generate
from subnet.wire.tensors import TokenIds


class UpstreamProtocol(Protocol):
    """What stands at `spec.url`, which is found out when it is first asked how it is, and again after it did not
    answer: another server may stand there then. `report` gets one line when it is found, when it is another than
    before, and when nothing could be found yet; `authorizer` is for subnet nodes. `tried` is set when it has been asked
    for the first time, with or without success.
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
        self.tried = asyncio.Event()
        self.peer = spec.peer
        own = Timeouts(spec.first_token_timeout, spec.inter_token_timeout, spec.attempt_timeout)
        self.timeouts = own if own != NONE else NONE
        self._finder = Finder(spec, authorizer, report, clock)
        self._finding: asyncio.Task[None] | None = None
        self._well = False

    @property
    def heard(self) -> float:
        reached = self._finder.reached
        return 0.0 if reached is None else reached.protocol.heard

    async def rpc_info(self) -> NodeInfo:
        try:
            if not self._well:
                await self._find()
            inner = self._inner
            self._well = False
            info = await inner.rpc_info()
            self._well = True
            return info
        finally:
            self.tried.set()

    async def rpc_artefact(self, sha256: str) -> bytes:
        return await self._inner.rpc_artefact(sha256)

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        return await self._inner.rpc_embed(inputs, model)

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        return await self._inner.rpc_score(tokens, width, model)

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        return self._inner.rpc_inference_stream(request)

    async def rpc_inference(self, request: Generate, emit: Emit, check: Check | None = None) -> None:
        try:
            await self._inner.rpc_inference(request, emit, check)
        except NodeLost:
            self._doubt()
            raise

    async def rpc_chat(self, request: ChatRequest, emit: EmitChat) -> ChatUsage | None:
        try:
            return await self._inner.rpc_chat(request, emit)
        except NodeLost:
            self._doubt()
            raise

    async def aclose(self) -> None:
        finding, self._finding = self._finding, None
        if finding is not None:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
        await self._finder.aclose()

    @property
    def _inner(self) -> Protocol:
        if self._finder.reached is None:
            raise NodeLost(f"{self.peer} has not been reached yet")
        return self._finder.reached.protocol

    def _doubt(self) -> None:
        """Who was lost once may be another from now on."""
        self._well = False

    async def _find(self) -> None:
        """Who asks may stop waiting: what was begun goes on, as the next one waits for it too."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._finder.find())
            self._finding.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._finding)
