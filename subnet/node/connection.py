"""What a node does for one gateway."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec
from aiohttp import web

from subnet import frames
from subnet.errors import EngineFailed, InvalidRequest, NodeError, NodeLeaving, SubnetError, WireError
from subnet.generation import Delta, Job, Start
from subnet.messages import (
    Accepted,
    ArtefactReply,
    ArtefactRequest,
    Cancel,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
)
from subnet.node_info import Capabilities, digest
from subnet.outbox import Outbox
from subnet.tensors import token_ids, unpack

if TYPE_CHECKING:
    from subnet.node.server import Node

logger = logging.getLogger(__name__)

# A gateway that does not read is not waited for longer, in seconds.
_FAREWELL = 1.0

# What columns.py has room for.
_MOST_CHOICES = 65_535

Request = InfoRequest | ArtefactRequest | Generate


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
                    raise WireError(f"a {message.type.name} message")
                self._receive(message.data)
        except WireError as error:
            logger.warning("closing a connection: %s", error)
            await self._socket.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=error.message.encode()[:120])

    async def hand_over(self) -> None:
        """End what runs, and tell the gateway so that it carries on elsewhere."""
        for call, task in list(self._calls.items()):
            task.cancel()
            self._outbox.post(_failed(call, NodeLeaving("the node ended")))
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
            case InfoRequest() | ArtefactRequest() | Generate():
                self._start(message)
            case Cancel():
                if (task := self._calls.get(message.call)) is not None:
                    task.cancel()
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
            case _:
                raise WireError(f"a {type(message).__name__}, which only nodes send")

    def _start(self, request: Request) -> None:
        if request.call in self._calls:
            raise WireError(f"call {request.call} is open already")
        task = asyncio.create_task(self._answer(request))
        self._calls[request.call] = task
        task.add_done_callback(lambda _: self._calls.pop(request.call, None))

    async def _answer(self, request: Request) -> None:
        try:
            if self._node.authorizer is not None:
                await self._node.authorizer.validate_request(request)
            match request:
                case InfoRequest():
                    await self._info(request)
                case ArtefactRequest():
                    self._outbox.post(self._artefact(request))
                case Generate():
                    await self._generate(request)
        except SubnetError as error:
            self._outbox.post(_failed(request.call, error))
        except Exception:
            logger.exception("the engine broke")
            self._outbox.post(_failed(request.call, EngineFailed("the engine broke; the node's log tells why")))

    async def _info(self, request: InfoRequest) -> None:
        reply = InfoReply(request.call, self._node.info())
        if self._node.authorizer is not None:
            reply = await self._node.authorizer.sign_response(reply, request)
        self._outbox.post(reply)

    def _artefact(self, request: ArtefactRequest) -> Message:
        artefact = self._node.engine.artefact
        if request.sha256 != digest(artefact):
            raise NodeError("no such artefact here")
        return ArtefactReply(request.call, artefact)

    async def _generate(self, request: Generate) -> None:
        if request.model not in (None, self._node.engine.card.id):
            raise NodeError(f"this node serves {self._node.engine.card.id}")
        _check(request, self._node.engine.capabilities)
        job = _job(request)
        if self._ending:
            # What was cancelled before this was asked has its slots free first.
            await asyncio.wait(set(self._ending))
        async with self._node.slots(len(job.starts)):
            accepted = Accepted(request.call)
            if self._node.authorizer is not None:
                accepted = await self._node.authorizer.sign_response(accepted, request)
            self._outbox.post(accepted)
            post, call = self._outbox.post_delta, request.call

            def emit(delta: Delta) -> None:
                post(call, delta)

            await self._node.engine.run(job, emit)

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._socket.send_bytes)
        except (ConnectionError, aiohttp.ClientError):
            logger.info("a gateway is gone")
        except Exception:
            logger.exception("cannot write to a gateway")
            await self._socket.close(code=aiohttp.WSCloseCode.INTERNAL_ERROR)


def _job(request: Generate) -> Job:
    try:
        prompt = token_ids(unpack(request.prompt))
        starts = tuple(Start(start.choice, token_ids(unpack(start.delivered))) for start in request.starts)
    except ValueError as error:
        raise WireError(str(error)) from error
    if len(prompt) == 0 or not starts or len({start.choice for start in starts}) < len(starts):
        raise InvalidRequest("a request without a prompt, or without distinct choices")
    sampling = request.sampling
    if sampling.seed is None:
        sampling = msgspec.structs.replace(sampling, seed=0)
    return Job(prompt, sampling, starts)


def _failed(call: int, error: SubnetError) -> Failed:
    return Failed(call, error.code, error.message, error.retry_after, error.param)


def _check(request: Generate, can: Capabilities) -> None:
    """Refuse by name what the engine would otherwise drop. Raises InvalidRequest."""
    wanted = request.sampling
    refusals = {
        "logprobs": wanted.logprobs is not None and not can.top_logprobs,
        "top_logprobs": wanted.logprobs is not None and wanted.logprobs > can.top_logprobs,
        "top_k": wanted.top_k != 0 and not can.top_k,
        "min_p": wanted.min_p != 0 and not can.min_p,
        "typical_p": wanted.typical_p != 1 and not can.typical_p,
        "frequency_penalty": wanted.frequency_penalty != 0 and not can.penalties,
        "presence_penalty": wanted.presence_penalty != 0 and not can.penalties,
        "repetition_penalty": wanted.repetition_penalty != 1 and not can.penalties,
        "logit_bias": bool(wanted.logit_bias) and not can.logit_bias,
        "min_tokens": wanted.min_tokens != 0 and not can.min_tokens,
        "ignore_eos": wanted.ignore_eos and not can.ignore_eos,
        "grammar": wanted.grammar is not None and wanted.grammar.kind not in can.grammars,
    }
    for param, refused in refusals.items():
        if refused:
            raise InvalidRequest(f"the engine of this model cannot do this: {param}", param=param)
    if any(not 0 <= start.choice <= _MOST_CHOICES for start in request.starts):
        raise InvalidRequest(f"choices are numbered from 0 to {_MOST_CHOICES}")
