"""Node side of the connection to one gateway."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp import web

from subnet.aio import Turn
from subnet.engines.job import to_job, to_plain_texts, to_text, to_texts
from subnet.errors import EngineFailed, NodeBusy, NodeError, NodeLeaving, SubnetError, Unauthorized, WireError
from subnet.generation import Delta
from subnet.tensors import pack
from subnet.wire import frames
from subnet.wire.columns import pack_logprobs
from subnet.wire.messages import (
    MAX_MESSAGE,
    MAX_RETRY_AFTER,
    Accepted,
    ArtefactReply,
    ArtefactRequest,
    Auth,
    Cancel,
    EmbedReply,
    EmbedRequest,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
    Reply,
    Request,
    ScoreReply,
    ScoreRequest,
    Signed,
    TokenizeReply,
    TokenizeRequest,
)
from subnet.wire.outbox import Outbox

if TYPE_CHECKING:
    from subnet.node.server import Node

logger = logging.getLogger(__name__)

# Time to write the last messages to a gateway that reads slowly, in seconds.
_FLUSH_TIMEOUT = 1.0
# Maximum size of the open calls of a gateway, in bytes: that of their requests, and for each what its task takes.
_MAX_OPEN = 256 * 1024 * 1024
_CALL_SIZE = 16 * 1024
_MAX_PARAM = 256

EngineRequest = Generate | EmbedRequest | ScoreRequest
LargeReply = ArtefactReply | EmbedReply | ScoreReply | TokenizeReply


class NodeConnection:
    """Handles the calls that arrive on `socket`. Leaving the `async with` block cancels those still running."""

    def __init__(self, node: Node, socket: web.WebSocketResponse) -> None:
        self._node = node
        self._socket = socket
        self._outbox = Outbox()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._open = 0
        # Held while a large reply waits to be written, so that there is one at a time.
        self._large_replies = asyncio.Lock()
        self._cancelled: set[asyncio.Task[None]] = set()
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
        """Handle messages until the gateway disconnects. An invalid message closes the connection, with the reason."""
        turn = Turn()
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    raise WireError(f"unexpected {message.type.name} message: expected a binary message")
                began = monotonic()
                self._receive(message.data)
                if turn.took(monotonic() - began):
                    await asyncio.sleep(0)
                if self._outbox.full:
                    await self._wait_for_reader()
        except WireError as error:
            logger.warning("closing the connection to a gateway: %s", error)
            await self._socket.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=error.message.encode()[:120])

    async def abort(self) -> None:
        """Cancel all calls and fail them with NodeLeaving, so that the gateway continues them on other nodes."""
        for call, task in list(self._calls.items()):
            task.cancel()
            self._outbox.post(_failure(call, NodeLeaving("the node has shut down")))
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                await self._outbox.drain()

    async def _wait_for_reader(self) -> None:
        """Wait until the gateway has read what was sent, or the connection is lost."""
        assert self._writer is not None
        logger.warning("waiting for a gateway to read: its unread replies exceed the maximum")
        drained = asyncio.create_task(self._outbox.drain())
        try:
            await asyncio.wait({drained, self._writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained.cancel()

    def _receive(self, frame: bytes) -> None:
        try:
            kind = frames.type_of(frame)
        except frames.UnknownFrame as unknown:
            self._outbox.post(_failure(0, unknown))
            return
        if self._node.authorizer is not None and issubclass(kind, Request):
            # Not decoded: what it contains comes from a stranger.
            error = Unauthorized("the message is not signed, but a shared secret is required")
            self._outbox.post(_failure(frames.call_of(frame), error))
            return
        if not issubclass(kind, Request | Signed | Cancel):
            raise WireError(f"unexpected {kind.__name__}: only nodes send it")
        message = frames.decode(frame)
        if isinstance(message, Cancel):
            self._cancel(message.call)
        elif isinstance(message, Request | Signed):
            self._start(message, len(frame) + _CALL_SIZE)

    def _cancel(self, call: int) -> None:
        if (task := self._calls.get(call)) is not None:
            task.cancel()
            self._cancelled.add(task)
            task.add_done_callback(self._cancelled.discard)

    def _start(self, message: Request | Signed, size: int) -> None:
        call = message.call
        if call in self._calls:
            raise WireError(f"call {call} is already open")
        if self._open + size > _MAX_OPEN:
            self._outbox.post(_failure(call, NodeBusy("too many calls are open", retry_after=0.2)))
            return

        def end(task: asyncio.Task[None]) -> None:
            self._calls.pop(call, None)
            self._open -= size

        task = asyncio.create_task(self._handle(message))
        self._calls[call] = task
        self._open += size
        task.add_done_callback(end)

    async def _handle(self, message: Request | Signed) -> None:
        try:
            request = await self._authenticated(message)
            auth = message.auth if isinstance(message, Signed) else None
            match request:
                case InfoRequest():
                    await self._node.engine.check()
                    await self._reply(InfoReply(request.call, self._node.info()), auth)
                case ArtefactRequest():
                    self._check_artefact(request.sha256)
                    await self._reply(ArtefactReply(request.call, self._node.engine.artefact), auth)
                case TokenizeRequest():
                    await self._tokenize(request, auth)
                case _:
                    await self._run_on_engine(request, auth)
        except SubnetError as error:
            self._outbox.post(_failure(message.call, error))
        except Exception:
            logger.exception("engine error")
            self._outbox.post(_failure(message.call, EngineFailed("engine error; see the node's log")))

    async def _authenticated(self, message: Request | Signed) -> Request:
        """Return the request, whose signature is checked before anything of it is decoded. Raises Unauthorized.

        It must be signed for this node: anything else was meant for another one with the same secret, or for this one
        before it restarted, whose nonces are forgotten. Only a request for the id of the node may do without it.
        """
        if not isinstance(message, Signed):
            return message
        if (authorizer := self._node.authorizer) is not None:
            asks_for_id = message.auth.node == "" and frames.type_of(message.content) is InfoRequest
            if not asks_for_id and message.auth.node != self._node.id:
                raise Unauthorized("the request is signed for another node")
            await authorizer.validate_request(message.content, message.auth)
        request = frames.decode_content(message)
        if not isinstance(request, Request):
            raise WireError(f"unexpected {type(request).__name__}: only nodes send it")
        return request

    def _check_artefact(self, sha256: str) -> None:
        if sha256 != self._node.engine.card.tokenizer:
            raise NodeError(f"unknown artefact {sha256[:12]}")

    async def _tokenize(self, request: TokenizeRequest, auth: Auth | None) -> None:
        self._check_artefact(request.sha256)
        tokens = await self._node.engine.tokenize(to_plain_texts(request))
        await self._reply(TokenizeReply(request.call, tuple(map(pack, tokens))), auth)

    async def _run_on_engine(self, request: EngineRequest, auth: Auth | None) -> None:
        if request.model not in (None, self._node.engine.card.id):
            raise NodeError(f"unknown model: this node serves {self._node.engine.card.id}")
        if self._cancelled:
            # Calls cancelled before this request must release their slots first.
            await asyncio.wait(set(self._cancelled))
        match request:
            case Generate():
                await self._generate(request, auth)
            case EmbedRequest():
                await self._embed(request, auth)
            case ScoreRequest():
                await self._score(request, auth)

    async def _embed(self, request: EmbedRequest, auth: Auth | None) -> None:
        texts = to_texts(request, self._node.engine.capabilities)
        async with self._node.slots(1):
            reply = EmbedReply(request.call, pack(await self._node.engine.embed(texts)))
            await self._reply(reply, auth)

    async def _score(self, request: ScoreRequest, auth: Auth | None) -> None:
        text = to_text(request, self._node.engine.capabilities)
        async with self._node.slots(1):
            logprobs = pack_logprobs(await self._node.engine.score(text, request.width))
            await self._reply(ScoreReply(request.call, logprobs), auth)

    async def _generate(self, request: Generate, auth: Auth | None) -> None:
        job = to_job(request, self._node.engine.capabilities)
        async with self._node.slots(len(job.starts)):
            await self._reply(Accepted(request.call), auth)
            post, call = self._outbox.post_delta, request.call

            def emit(delta: Delta) -> None:
                post(call, delta)

            await self._node.engine.run(job, emit)

    async def _reply(self, reply: Reply, request: Auth | None) -> None:
        """Send a reply to the request that was signed with `request`.

        A large one waits until everything before it is written: a gateway that does not read must not fill the memory
        with replies.
        """
        if not isinstance(reply, LargeReply):
            self._outbox.post(await self._signed(reply, request))
            return
        async with self._large_replies:
            await self._outbox.drain()
            self._outbox.post(await self._signed(reply, request))

    async def _signed(self, reply: Reply, request: Auth | None) -> Message:
        authorizer = self._node.authorizer
        # An artefact is checked by its digest.
        if authorizer is None or request is None or isinstance(reply, ArtefactReply):
            return reply
        content = frames.encode(reply)
        return Signed(reply.call, await authorizer.sign_response(content, request), content)

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._socket.send_bytes)
        except (ConnectionError, aiohttp.ClientError):
            logger.info("lost the connection to a gateway")
        except Exception:
            logger.exception("cannot write to a gateway")
            await self._socket.close(code=aiohttp.WSCloseCode.INTERNAL_ERROR)


def _failure(call: int, error: SubnetError) -> Failed:
    retry_after = error.retry_after
    if retry_after is not None:
        retry_after = min(max(0.0, retry_after), MAX_RETRY_AFTER)
    param = None if error.param is None else error.param[:_MAX_PARAM]
    return Failed(call, error.code, error.message[:MAX_MESSAGE], retry_after, param)
