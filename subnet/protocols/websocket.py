"""Client of the subnet's own protocol, over one WebSocket per node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink, stream_from_callback
from subnet.authorizers import AuthorizerBase
from subnet.errors import InvalidRequest, NodeLost, NodeTimeout, Unauthorized, WireError
from subnet.generation import Delta, TokenLogprobs
from subnet.http.lookup import SYSTEM_NAMES, Names, tcp_connector
from subnet.node_info import NodeInfo, digest
from subnet.protocols.base import Protocol
from subnet.protocols.call import Call
from subnet.protocols.client_connection import Connection
from subnet.tensors import Tensor, TokenIds, pack, token_ids, unpack
from subnet.wire import frames
from subnet.wire.columns import unpack_logprobs
from subnet.wire.messages import (
    MAX_DIMENSIONS,
    MAX_TEXTS,
    MAX_TOKENIZE_SIZE,
    MAX_TOKENIZE_TEXTS,
    Accepted,
    ArtefactReply,
    ArtefactRequest,
    Auth,
    EmbedReply,
    EmbedRequest,
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

ReplyT = TypeVar("ReplyT", InfoReply, ArtefactReply, EmbedReply, ScoreReply, TokenizeReply, Accepted)

PATH = "/subnet"
# An unreachable peer does not answer the closing handshake, and a new connection must not wait for it. In seconds.
_CLOSE_TIMEOUT = aiohttp.ClientWSTimeout(ws_close=0.5)


class WebSocketProtocol(Protocol):
    """Subnet node at `url` (http://host:port). Connects on first use, and again after a loss; close with aclose().

    `authorizer` signs and validates all calls; rpc_inference may have one of its own. Before anything else is sent over
    a connection, the node has to prove its id, for which all requests are signed.

    `models` are the models to serve, each with the node's own name for it; none: all of the node's.

    `connect_timeout` applies to connecting, `call_timeout` to rpc_info, rpc_artefact and rpc_tokenize. `heartbeat` is
    the interval of pings; a peer that does not answer one within half an interval is lost. All times are in seconds.
    `names` resolves the host name.
    """

    def __init__(
        self,
        url: str,
        authorizer: AuthorizerBase | None = None,
        *,
        models: Mapping[str, str] | None = None,
        connect_timeout: float = 3.0,
        call_timeout: float = 10.0,
        heartbeat: float = 5.0,
        names: Names = SYSTEM_NAMES,
    ) -> None:
        self.peer = url.rstrip("/")
        self._authorizer = authorizer
        self._models = models or {}
        self._connect_timeout = connect_timeout
        self._call_timeout = call_timeout
        self._heartbeat = heartbeat
        self._names = names
        self._http: aiohttp.ClientSession | None = None
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    @property
    def last_received(self) -> float:
        return 0.0 if self._connection is None else self._connection.last_received

    async def rpc_info(self) -> NodeInfo:
        async with self._with_call_timeout("rpc_info"):
            return self._select((await self._call(InfoRequest(0), InfoReply)).info)

    def _select(self, info: NodeInfo) -> NodeInfo:
        """Return the description with the models to serve. Raises WireError for a model that takes no token ids."""
        if any(card.lane != "token" for card in info.cards):
            raise WireError(f"{self.peer} claims to serve a model on another lane than that of token ids")
        if not self._models:
            return info
        cards = {card.id: card for card in info.cards}
        found = ((name, cards.get(own)) for name, own in self._models.items())
        selected = tuple(msgspec.structs.replace(card, id=name) for name, card in found if card is not None)
        return msgspec.structs.replace(info, cards=selected)

    def _own_name(self, model: str | None) -> str | None:
        return model if model is None else self._models.get(model, model)

    async def rpc_artefact(self, sha256: str) -> bytes:
        async with self._with_call_timeout("rpc_artefact"):
            data = (await self._call(ArtefactRequest(0, sha256), ArtefactReply)).data
        if digest(data) != sha256:
            raise WireError(f"{self.peer} returned an artefact that does not match its digest {sha256[:12]}")
        return data

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        vectors = []
        for first in range(0, len(inputs), MAX_TEXTS):
            texts = tuple(pack(text) for text in inputs[first : first + MAX_TEXTS])
            reply = await self._call(EmbedRequest(model=self._own_name(model), inputs=texts), EmbedReply)
            vectors.append(self._vectors(reply.embeddings, len(texts)))
        if len({array.shape[1] for array in vectors}) > 1:
            raise WireError(f"{self.peer} returned embeddings of different sizes")
        return np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        reply = await self._call(
            ScoreRequest(model=self._own_name(model), tokens=pack(tokens), width=width), ScoreReply
        )
        widths = reply.logprobs.widths
        if len(widths) != len(tokens) - 1:
            raise WireError(f"{self.peer} returned {len(widths)} logprobs for {len(tokens)} tokens")
        if max(widths, default=0) > width:
            raise WireError(f"{self.peer} returned {max(widths)} alternatives of a token instead of {width}")
        return unpack_logprobs(reply.logprobs)

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        tokens: list[TokenIds] = []
        for part in _tokenize_parts(texts):
            async with self._with_call_timeout("rpc_tokenize"):
                reply = await self._call(TokenizeRequest(sha256=sha256, texts=part), TokenizeReply)
            if len(reply.tokens) != len(part):
                raise WireError(f"{self.peer} returned the tokens of {len(reply.tokens)} texts for {len(part)}")
            tokens += map(self._token_ids, reply.tokens)
        return tokens

    def _token_ids(self, tensor: Tensor) -> TokenIds:
        try:
            return token_ids(unpack(tensor))
        except ValueError as error:
            raise WireError(f"{self.peer} returned invalid tokens: {error}") from error

    def _vectors(self, tensor: Tensor, count: int) -> NDArray[np.float32]:
        vectors = unpack(tensor)
        is_valid = vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == count
        if not is_valid or vectors.shape[1] > MAX_DIMENSIONS:
            raise WireError(f"{self.peer} returned {tensor.dtype} embeddings of shape {tensor.shape} for {count} texts")
        if not np.isfinite(vectors).all():
            raise WireError(f"{self.peer} returned embeddings that are not finite")
        return vectors.astype(np.float32)

    async def _call(self, request: Request, kind: type[ReplyT]) -> ReplyT:
        """Send `request`, and return the validated reply."""
        connection, authorizer = await self._connect(), self._authorizer
        node = connection.node or ""
        if authorizer is not None and not isinstance(request, InfoRequest):
            node = await self._identify(connection, authorizer)
        with connection.open_call() as call:
            auth = await self._send(connection, call, request, authorizer, node)
            reply = await self._receive(call, kind, authorizer, auth)
        if isinstance(reply, InfoReply) and authorizer is not None:
            connection.node = connection.node or reply.info.node_id
        return reply

    async def _identify(self, connection: Connection, authorizer: AuthorizerBase) -> str:
        """Return the id of the node at the other end of a connection. It is asked for it once. Raises Unauthorized."""
        if connection.node is None:
            async with self._with_call_timeout("rpc_info"):
                with connection.open_call() as call:
                    auth = await self._send(connection, call, InfoRequest(0), authorizer, "")
                    info = (await self._receive(call, InfoReply, authorizer, auth)).info
            connection.node = connection.node or info.node_id
        return connection.node

    async def _send(
        self, connection: Connection, call: Call, request: Request, authorizer: AuthorizerBase | None, node: str
    ) -> Auth | None:
        """Queue a request as that of `call`, signed for `node` if there is an authorizer. Returns the signature.

        Raises InvalidRequest if it cannot be encoded: neither node nor connection is at fault.
        """
        message: Message = msgspec.structs.replace(request, call=call.number)
        auth = None
        try:
            if authorizer is not None:
                content = frames.encode(message)
                auth = await authorizer.sign_request(content, node)
                message = Signed(call.number, auth, content)
            connection.post(message)
        except (WireError, OverflowError, UnicodeEncodeError, TypeError) as error:
            raise InvalidRequest(f"The request cannot be sent: {error}") from error
        return auth

    async def _receive(
        self, call: Call, kind: type[ReplyT], authorizer: AuthorizerBase | None, auth: Auth | None
    ) -> ReplyT:
        """Wait for the reply to the request that was signed with `auth`. Raises Unauthorized if it must be signed."""
        reply = await call.reply()
        if isinstance(reply, Signed) and authorizer is not None and auth is not None:
            await authorizer.validate_response(reply.content, reply.auth, auth)
            reply = _reply_in(reply)
        elif authorizer is not None and not isinstance(reply, ArtefactReply):
            raise Unauthorized("the message is not signed, but a shared secret is required")
        if not isinstance(reply, kind):
            raise WireError(f"{self.peer} sent an unexpected reply: {type(reply).__name__}, not {kind.__name__}")
        return reply

    def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        return stream_from_callback(partial(self.rpc_inference, request))

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        connection, authorizer = await self._connect(), authorizer or self._authorizer
        if self._models:
            request = msgspec.structs.replace(request, model=self._own_name(request.model))
        node = "" if authorizer is None else await self._identify(connection, authorizer)
        with connection.open_call(start.choice for start in request.starts) as call:
            auth = await self._send(connection, call, request, authorizer, node)
            if authorizer is not None:
                await self._receive(call, Accepted, authorizer, auth)
            call.forward_to(emit)
            await call.finished()

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def _connect(self) -> Connection:
        if self._connection is not None and self._connection.is_open:
            return self._connection
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                if self._connection is not None:
                    await self._connection.aclose()
                self._connection = Connection(await self._open(), self.peer)
            return self._connection

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=tcp_connector(self._names))
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._http.ws_connect(
                    self.peer + PATH,
                    max_msg_size=frames.MAX_FRAME,
                    heartbeat=self._heartbeat,
                    compress=0,
                    timeout=_CLOSE_TIMEOUT,
                )
        except TimeoutError as error:
            message = f"connecting to {self.peer} timed out after {self._connect_timeout:g} s (connect_timeout)"
            raise NodeLost(message) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NodeLost(f"cannot connect to {self.peer}: {_reason(error)}") from error

    @asynccontextmanager
    async def _with_call_timeout(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._call_timeout):
                yield
        except TimeoutError as error:
            raise NodeTimeout(f"{what} of {self.peer} timed out after {self._call_timeout:g} s") from error


def _reply_in(signed: Signed) -> Reply:
    message = frames.decode_content(signed)
    if not isinstance(message, Reply):
        raise WireError(f"unexpected {type(message).__name__}: only clients send it")
    return message


def _reason(error: Exception) -> str:
    """Return the operating system's message, without the text that aiohttp adds."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number is not None and number > 0 else getattr(error, "strerror", None) or str(error)


def _tokenize_parts(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the texts in parts that one TokenizeRequest can have. A text that is too long for any is refused there."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if part and (len(part) == MAX_TOKENIZE_TEXTS or size + length > MAX_TOKENIZE_SIZE):
            yield tuple(part)
            part, size = [], 0
        part.append(text)
        size += length
    if part:
        yield tuple(part)
