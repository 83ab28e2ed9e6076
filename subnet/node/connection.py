"""What a node does for one gateway."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp import web

from subnet.authorizers.base import ResponseT
from subnet.engines.job import to_job, to_text, to_texts
from subnet.errors import EngineFailed, NodeError, NodeLeaving, SubnetError, WireError
from subnet.generation import Delta
from subnet.node_info import digest
from subnet.wire import frames
from subnet.wire.messages import (
    Accepted,
    ArtefactReply,
    ArtefactRequest,
    Cancel,
    EmbedReply,
    EmbedRequest,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
    Request,
    ScoreReply,
    ScoreRequest,
)
from subnet.wire.outbox import Outbox
from subnet.wire.tensors import pack

if TYPE_CHECKING:
    from subnet.node.server import Node

logger = logging.getLogger(__name__)

# A gateway that does not read is not waited for longer, in seconds.
_FAREWELL = 1.0

Work = Generate | EmbedRequest | ScoreRequest


class NodeConnection:
    """Answers the calls that arrive on `socket`; leaving the block ends what still runs for them."""

    def __init__(self, node: Node, socket: web.WebSocketResponse) -> None:
        self._node = node
        self._socket = socket
        self._outbox = Outbox()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._calls.values(), *([self._writer] if self._writer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def serve(self) -> None:
        """Until the gateway leaves, or sends what does not decode: then the connection closes with a reason."""
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    raise WireError(f"unexpected {message.type.name} message: expected a binary message")
                self._receive(message.data)
        except WireError as error:
            logger.warning("closing the connection to a gateway: %s", error)
            await self._socket.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=error.message.encode()[:120])

    async def hand_over(self) -> None:
        """End what runs, and tell the gateway so that it carries on elsewhere."""
        for call, task in list(self._calls.items()):
            task.cancel()
            self._outbox.post(_failed(call, NodeLeaving("the node has shut down")))
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._outbox.emptied()

    def _receive(self, frame: bytes) -> None:
        try:
            message = frames.decode(frame)
        except frames.UnknownFrame as error:
            self._outbox.post(_failed(0, error))
            return
        match message:
            case InfoRequest() | ArtefactRequest() | Generate() | EmbedRequest() | ScoreRequest():
                self._start(message)
            case Cancel():
                if (task := self._calls.get(message.call)) is not None:
                    task.cancel()
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
            case _:
                raise WireError(f"unexpected {type(message).__name__}: only nodes send it")

    def _start(self, request: Request) -> None:
        if request.call in self._calls:
            raise WireError(f"call {request.call} is already open")
        task = asyncio.create_task(self._answer(request))
        self._calls[request.call] = task
        task.add_done_callback(lambda _: self._calls.pop(request.call, None))

    async def _answer(self, request: Request) -> None:
        try:
            if self._node.authorizer is not None:
                await self._node.authorizer.validate_request(request)
            match request:
                case InfoRequest():
                    await self._node.engine.check()
                    self._outbox.post(await self._signed(InfoReply(request.call, self._node.info()), request))
                case ArtefactRequest():
                    self._outbox.post(self._artefact(request))
                case _:
                    await self._work(request)
        except SubnetError as error:
            self._outbox.post(_failed(request.call, error))
        except Exception:
            logger.exception("engine error")
            self._outbox.post(_failed(request.call, EngineFailed("engine error; see the node's log")))

    def _artefact(self, request: ArtefactRequest) -> Message:
        artefact = self._node.engine.artefact
        if request.sha256 != digest(artefact):
            raise NodeError(f"unknown artefact {request.sha256[:12]}")
        return ArtefactReply(request.call, artefact)

    async def _work(self, request: Work) -> None:
        if request.model not in (None, self._node.engine.card.id):
            raise NodeError(f"unknown model: this node serves {self._node.engine.card.id}")
        if self._ending:
            # What was cancelled before this was asked has its slots free first.
            await asyncio.wait(set(self._ending))
        match request:
            case Generate():
                await self._generate(request)
            case EmbedRequest():
                await self._embed(request)
            case ScoreRequest():
                await self._score(request)

    async def _embed(self, request: EmbedRequest) -> None:
        texts = to_texts(request, self._node.engine.capabilities)
        async with self._node.slots(1):
            reply = EmbedReply(request.call, pack(await self._node.engine.embed(texts)))
        self._outbox.post(await self._signed(reply, request))

    async def _score(self, request: ScoreRequest) -> None:
        text = to_text(request, self._node.engine.capabilities)
        async with self._node.slots(1):
            reply = ScoreReply(request.call, await self._node.engine.score(text, request.width))
        self._outbox.post(await self._signed(reply, request))

    async def _generate(self, request: Generate) -> None:
        job = to_job(request, self._node.engine.capabilities)
        async with self._node.slots(len(job.starts)):
            self._outbox.post(await self._signed(Accepted(request.call), request))
            post, call = self._outbox.post_delta, request.call

            def emit(delta: Delta) -> None:
                post(call, delta)

            await self._node.engine.run(job, emit)

    async def _signed(self, response: ResponseT, request: Request) -> ResponseT:
        authorizer = self._node.authorizer
        return response if authorizer is None else await authorizer.sign_response(response, request)

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._socket.send_bytes)
        except (ConnectionError, aiohttp.ClientError):
            logger.info("lost the connection to a gateway")
        except Exception:
            logger.exception("cannot write to a gateway")
            await self._socket.close(code=aiohttp.WSCloseCode.INTERNAL_ERROR)


def _failed(call: int, error: SubnetError) -> Failed:
    return Failed(call, error.code, error.message, error.retry_after, error.param)
