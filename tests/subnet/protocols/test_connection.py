"""The client's end of a WebSocket connection, against scripted nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import SHUT_RDWR
from time import monotonic

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from subnet import MockProtocol, Sampling, TokenAuthorizer
from subnet.authorizers import AuthorizerBase
from subnet.errors import InvalidRequest, NodeBusy, NodeDied, NodeLost, Unauthorized, WireError
from subnet.generation import Delta, TokenLogprobs
from subnet.protocols.websocket import WebSocketProtocol
from subnet.tensors import pack, token_ids
from subnet.wire import columns, frames
from subnet.wire.messages import (
    Accepted,
    Auth,
    Cancel,
    ChoiceStart,
    Deltas,
    EmbedReply,
    EmbedRequest,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
    ScoreReply,
    ScoreRequest,
    Signed,
)

REQUEST = Generate(
    model=None,
    prompt=pack(token_ids([1])),
    sampling=Sampling(),
    starts=(ChoiceStart(0, pack(np.array([], np.int32))),),
)
END = Delta(0, [8], None, "stop")


class NodeEnd:
    """The node's end of a connection."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket

    async def receive(self) -> Message:
        return frames.decode(await self.socket.receive_bytes())

    async def receive_generate(self) -> int:
        """Receive a Generate request and return its call number."""
        message = await self.receive()
        assert isinstance(message, Generate)
        return message.call

    async def send(self, *messages: Message) -> None:
        for message in messages:
            await self.socket.send_bytes(frames.encode(message))

    async def reply_info(self) -> None:
        """Receive an InfoRequest and reply to it."""
        message = await self.receive()
        assert isinstance(message, InfoRequest)
        await self.send(InfoReply(message.call, await MockProtocol().rpc_info()))


@asynccontextmanager
async def node(
    script: Callable[[NodeEnd], Awaitable[None]], authorizer: AuthorizerBase | None = None
) -> AsyncIterator[WebSocketProtocol]:
    """Run a node that runs `script` on each connection and then closes it; yield a client of the node."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await script(NodeEnd(socket))
        return socket

    application = web.Application()
    application.router.add_get("/subnet", handler)
    async with TestServer(application) as server, asyncio.timeout(20):
        client = WebSocketProtocol(str(server.make_url("/")), authorizer)
        try:
            yield client
        finally:
            await client.aclose()


def deltas(call: int, *items: Delta) -> Deltas:
    return columns.pack([(call, delta) for delta in items])


async def test_a_node_that_dies() -> None:
    """A connection that ends without a closing frame means that the node's process is gone; with one, it is lost."""

    async def die(end: NodeEnd) -> None:
        await end.receive_generate()
        transport = end.socket.get_extra_info("socket")
        transport.shutdown(SHUT_RDWR)

    async def close(end: NodeEnd) -> None:
        await end.receive_generate()

    async with node(die) as client:
        with pytest.raises(NodeDied, match="without notice"):
            await client.rpc_inference(REQUEST, lambda delta: None)
    async with node(close) as client:
        with pytest.raises(NodeLost, match="was lost") as caught:
            await client.rpc_inference(REQUEST, lambda delta: None)
        assert not isinstance(caught.value, NodeDied)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
async def test_results_that_are_not_finite(number: float) -> None:
    """Embeddings and logprobs that are not finite are invalid data of the node, never passed on."""

    async def script(end: NodeEnd) -> None:
        while True:
            match await end.receive():
                case EmbedRequest(call=call):
                    await end.send(EmbedReply(call, pack(np.array([[0.0, number]], np.float32))))
                case ScoreRequest(call=call):
                    await end.send(ScoreReply(call, columns.pack_logprobs([TokenLogprobs(-1.0, (5,), (number,))])))

    async with node(script) as client:
        with pytest.raises(WireError, match="finite"):
            await client.rpc_embed([token_ids([1])])
        with pytest.raises(WireError, match="finite"):
            await client.rpc_score(token_ids([1, 2]), 1)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_another_number_of_logprobs(count: int) -> None:
    """Logprobs of more or fewer tokens than were asked for are invalid: there is one for each token after the first."""

    async def script(end: NodeEnd) -> None:
        message = await end.receive()
        assert isinstance(message, ScoreRequest)
        entries = [TokenLogprobs(-1.0, (5,), (-1.0,))] * count
        await end.send(ScoreReply(message.call, columns.pack_logprobs(entries)))
        await end.socket.receive()

    async with node(script) as client:
        with pytest.raises(WireError, match=f"returned {count} logprobs for 3 tokens"):
            await client.rpc_score(token_ids([1, 2, 3]), 1)


async def test_a_lost_connection_is_replaced() -> None:
    """The calls of a lost connection fail at once, and the next call opens a new connection."""

    async def one_message(end: NodeEnd) -> None:
        if isinstance(message := await end.receive(), InfoRequest):
            await end.send(InfoReply(message.call, await MockProtocol().rpc_info()))

    async with node(one_message) as client:
        with pytest.raises(NodeLost, match="was lost"):
            await client.rpc_inference(REQUEST, lambda delta: None)
        before = monotonic()
        assert (await client.rpc_info()).engine == "mock"
        assert before < client.last_received <= monotonic()


class SlowAuthorizer(TokenAuthorizer):
    """Authorizer whose signing waits for the event `go_on`."""

    def __init__(self) -> None:
        super().__init__("secret")
        self.started, self.go_on = asyncio.Event(), asyncio.Event()

    async def sign_request(self, content: bytes, node: str) -> Auth:
        self.started.set()
        await self.go_on.wait()
        return await super().sign_request(content, node)


async def test_a_connection_lost_while_a_request_is_signed() -> None:
    """A call whose connection is lost while its request is signed fails, and does not wait for a reply."""
    authorizer = SlowAuthorizer()

    async def disconnect(end: NodeEnd) -> None:
        await authorizer.started.wait()

    async with node(disconnect, authorizer) as client:
        embedding = asyncio.create_task(client.rpc_embed([token_ids([1])]))
        await authorizer.started.wait()
        async with asyncio.timeout(10):
            while client._connection is None or client._connection.is_open:
                await asyncio.sleep(0.01)
        authorizer.go_on.set()
        with pytest.raises(NodeLost):
            await embedding


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("hello", "sent a TEXT message: expected a binary message"),
        (frames.encode(Cancel(1)), "unexpected Cancel: only clients send it"),
        (bytes((frames.VERSION, 99)) + b"\x80", "unknown frame type 99"),
        (bytes((frames.VERSION, 7)) + b"\xc1", "invalid Deltas"),
        (frames.encode(Deltas(b"abc", b"", b"", b"", b"")), "truncated column"),
    ],
)
async def test_invalid_data_closes_the_connection(data: str | bytes, reason: str) -> None:
    """Invalid data from a node closes the connection and tells both sides the reason."""
    codes = []

    async def send_invalid_data(end: NodeEnd) -> None:
        await end.receive_generate()
        await (end.socket.send_str(data) if isinstance(data, str) else end.socket.send_bytes(data))
        message = await end.socket.receive()
        codes.append((message.data, message.extra))

    async with node(send_invalid_data) as client:
        with pytest.raises(WireError, match=reason):
            await client.rpc_inference(REQUEST, lambda delta: None)
        while not codes:
            await asyncio.sleep(0.01)
    assert codes == [(aiohttp.WSCloseCode.PROTOCOL_ERROR, WireError.code)]


async def test_a_request_that_cannot_be_sent() -> None:
    """A request that cannot be encoded fails, without affecting other calls on its connection."""
    received: list[list[int]] = []

    async def script(end: NodeEnd) -> None:
        call = await end.receive_generate()
        # The calls that could not be sent are cancelled.
        while isinstance(message := await end.receive(), Cancel):
            pass
        assert isinstance(message, InfoRequest)
        await end.send(InfoReply(message.call, await MockProtocol().rpc_info()), Accepted(call), deltas(call, END))
        await end.socket.receive()

    large = msgspec.structs.replace(REQUEST, text="x" * frames.MAX_FRAME)
    not_utf8 = msgspec.structs.replace(REQUEST, text="\ud800")
    async with node(script) as client:
        other = asyncio.create_task(client.rpc_inference(REQUEST, lambda delta: received.append(delta.tokens)))
        await asyncio.sleep(0)
        for request in (large, not_utf8):
            with pytest.raises(InvalidRequest, match="cannot be sent"):
                await client.rpc_inference(request, lambda delta: None)
        assert (await client.rpc_info()).engine == "mock"
        await other
    assert received == [[8]]


async def test_an_error_keeps_its_details() -> None:
    """An error of the node is raised at the client with its class, message and retry_after."""

    async def full(end: NodeEnd) -> None:
        await end.send(Failed(await end.receive_generate(), NodeBusy.code, "full", retry_after=3.5))
        await end.receive()

    async with node(full) as client:
        with pytest.raises(NodeBusy, match="full") as refused:
            await client.rpc_inference(REQUEST, lambda delta: None)
    assert refused.value.retry_after == 3.5


class HeldBack(TokenAuthorizer):
    """Authorizer that calls `during` while it checks a response to a Generate request."""

    def __init__(self, during: Callable[[], Awaitable[object]]) -> None:
        super().__init__("secret")
        self._during = during

    async def validate_response(self, content: bytes, auth: Auth, request: Auth) -> None:
        if frames.type_of(content) is Accepted:
            await self._during()
        await super().validate_response(content, auth, request)


class SigningEnd(NodeEnd):
    """Node's end that has the secret."""

    authorizer = TokenAuthorizer("secret")

    async def receive_signed(self) -> Signed:
        message = await self.receive()
        assert isinstance(message, Signed)
        return message

    async def reply_signed(self, request: Signed, reply: Message) -> None:
        content = frames.encode(reply)
        await self.send(Signed(request.call, await self.authorizer.sign_response(content, request.auth), content))

    async def prove(self) -> None:
        """Receive an InfoRequest and reply to it, signed."""
        request = await self.receive_signed()
        await self.reply_signed(request, InfoReply(request.call, await MockProtocol(peer="the node").rpc_info()))


async def test_tokens_that_arrive_before_the_check() -> None:
    """Tokens that arrive before the check of Accepted is complete are held back, and then delivered in order."""
    delivered_at_check: list[Delta] = []
    delivered: list[Delta] = []

    async def send_at_once(end: NodeEnd) -> None:
        signing = SigningEnd(end.socket)
        await signing.prove()
        request = await signing.receive_signed()
        assert request.auth.node == "the node"
        await signing.reply_signed(request, Accepted(request.call))
        await end.send(deltas(request.call, Delta(0, [7]), END))
        await signing.prove()

    async def during() -> None:
        await client.rpc_info()  # the node replies after the tokens
        delivered_at_check.extend(delivered)

    async with node(send_at_once, HeldBack(during)) as client:
        await client.rpc_inference(REQUEST, delivered.append)
    assert delivered_at_check == []
    assert [delta.tokens for delta in delivered] == [[7], [8]]


async def test_an_id_that_was_not_proved() -> None:
    """The id that a node gave without a signature is not the one for which later requests are signed."""
    signed_for: list[str] = []

    async def script(end: NodeEnd) -> None:
        await end.reply_info()
        signing = SigningEnd(end.socket)
        await signing.prove()
        request = await signing.receive_signed()
        signed_for.append(request.auth.node)
        await signing.reply_signed(request, Accepted(request.call))
        await end.send(deltas(request.call, END))
        await end.socket.receive()

    async with node(script) as client:
        assert (await client.rpc_info()).node_id != "the node"
        await client.rpc_inference(REQUEST, lambda delta: None, TokenAuthorizer("secret"))
    assert signed_for == ["the node"]


@pytest.mark.parametrize("accepts", [False, True], ids=["nothing", "unsigned"])
async def test_tokens_without_authentication_are_refused(accepts: bool) -> None:
    """Tokens of a node that sent no Accepted, or one that is not signed, are refused if the client has a secret."""

    async def send_tokens(end: NodeEnd) -> None:
        signing = SigningEnd(end.socket)
        await signing.prove()
        call = (await signing.receive_signed()).call
        await end.send(*[Accepted(call)] * accepts, deltas(call, END))
        await end.receive()

    delivered: list[Delta] = []
    async with node(send_tokens, TokenAuthorizer("secret")) as client:
        with pytest.raises(Unauthorized):
            await client.rpc_inference(REQUEST, delivered.append)
    assert delivered == []


async def test_a_complete_answer_is_not_cancelled() -> None:
    """The client sends no Cancel for a complete answer."""

    async def answer(end: NodeEnd) -> None:
        call = await end.receive_generate()
        await end.send(Accepted(call), deltas(call, END))
        await end.reply_info()

    async with node(answer) as client:
        await client.rpc_inference(REQUEST, lambda delta: None)
        assert (await client.rpc_info()).engine == "mock"


async def test_first_tokens_are_delivered_first() -> None:
    """The first tokens of an answer are delivered before other tokens of their frame; each answer keeps its order."""
    delivered: list[tuple[str, list[int]]] = []

    async def send_both(end: NodeEnd) -> None:
        old = await end.receive_generate()
        await end.send(Accepted(old), deltas(old, Delta(0, [1])))
        new = await end.receive_generate()
        rows = [(old, Delta(0, [2])), (new, Delta(0, [7])), (old, END), (new, END)]
        await end.send(Accepted(new), columns.pack(rows))
        await end.socket.receive()

    async def ask(client: WebSocketProtocol, name: str) -> None:
        await client.rpc_inference(REQUEST, lambda delta: delivered.append((name, delta.tokens)))

    async with node(send_both) as client:
        first = asyncio.create_task(ask(client, "old"))
        while not delivered:
            await asyncio.sleep(0.001)
        await ask(client, "new")
        await first
    assert delivered == [("old", [1]), ("new", [7]), ("new", [8]), ("old", [2]), ("old", [8])]


async def test_an_error_of_emit_ends_the_call() -> None:
    """An error raised by `emit` ends the call, cancels it at the node, and stops further deltas."""
    received: list[Message] = []
    delivered: list[list[int]] = []

    async def send_two_deltas(end: NodeEnd) -> None:
        call = await end.receive_generate()
        await end.send(Accepted(call), deltas(call, Delta(0, [7]), END))
        received.append(await end.receive())

    def emit(delta: Delta) -> None:
        delivered.append(list(delta.tokens))
        raise ZeroDivisionError

    async with node(send_two_deltas) as client:
        with pytest.raises(ZeroDivisionError):
            await client.rpc_inference(REQUEST, emit)
        while not received:
            await asyncio.sleep(0.01)
    assert delivered == [[7]]
    assert received == [Cancel(1)]
