"""Engine in this process, as a node: for engines that are clients of a remote server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink, stream_from_callback
from subnet.authorizers import AuthorizerBase
from subnet.engines.base import Engine
from subnet.engines.job import to_job, to_text, to_texts
from subnet.errors import NodeBusy, NodeError
from subnet.generation import Delta, TokenLogprobs
from subnet.node_info import NodeInfo
from subnet.protocols.base import Protocol
from subnet.tensors import TokenIds, pack
from subnet.version import VERSION
from subnet.wire.messages import EmbedRequest, Generate, ScoreRequest


class InProcessProtocol(Protocol):
    """Node that runs `engine` in this process, so that requests and responses need no signatures.

    The engine is entered during the first health check, and exited in aclose().
    """

    def __init__(self, engine: Engine, peer: str) -> None:
        self.peer = peer
        self._engine = engine
        self._entered = False
        self._entering = asyncio.Lock()
        self._running = 0
        self._id = f"direct-{secrets.token_hex(4)}"

    async def rpc_info(self) -> NodeInfo:
        async with self._entering:
            if not self._entered:
                await self._engine.__aenter__()
                self._entered = True
        await self._engine.check()
        return NodeInfo(
            node_id=self._id,
            version=VERSION,
            engine=self._engine.name,
            cards=(self._engine.card,),
            capabilities=self._engine.capabilities,
            capacity=self._engine.capacity,
            running=self._running,
        )

    async def rpc_artefact(self, sha256: str) -> bytes:
        return self._engine.artefact

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        self._check(model)
        request = EmbedRequest(model=model, inputs=tuple(pack(text) for text in inputs))
        return await self._engine.embed(to_texts(request, self._engine.capabilities))

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        self._check(model)
        request = ScoreRequest(model=model, tokens=pack(tokens), width=width)
        return await self._engine.score(to_text(request, self._engine.capabilities), width)

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        return await self._engine.tokenize(texts)

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        return stream_from_callback(partial(self.rpc_inference, request))

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        self._check(request.model)
        job = to_job(request, self._engine.capabilities)
        needed = len(job.starts)
        if self._running + needed > self._engine.capacity:
            raise NodeBusy(
                f"{self._running} of {self._engine.capacity} slots are in use, and the request needs {needed}",
                retry_after=0.2,
            )
        self._running += needed
        try:
            await self._engine.run(job, emit)
        finally:
            self._running -= needed

    async def aclose(self) -> None:
        async with self._entering:
            if self._entered:
                self._entered = False
                await self._engine.__aexit__(None, None, None)

    def _check(self, model: str | None) -> None:
        if not self._entered or model not in (None, self._engine.card.id):
            raise NodeError(f"{self.peer} does not serve {model}")
