"""The client's end of a connection, with a node of any manners at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from subnet import MockProtocol, Sampling, TokenAuthorizer
from subnet.authorizers.base import AuthorizerBase, RequestT
from subnet.errors import InvalidRequest, NodeBusy, NodeLost, Unauthorized, WireError
from subnet.generation import Delta
from subnet.protocols.websocket import WebSocketProtocol
from subnet.wire import columns, frames
from subnet.wire.messages import (
    Accepted,
    Cancel,
    ChoiceStart,
    Deltas,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
)
from subnet.wire.tensors import pack, token_ids

REQUEST = Generate(
    model=None,
    prompt=pack(token_ids([1])),
    sampling=Sampling(),
    starts=(ChoiceStart(0, pack(np.array([], np.int32))),),
)
END = Delta(0, [8], None, "stop")


class Peer:
    """A node's end."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket

    async def heard(self) -> Message:
        return frames.decode(await self.socket.receive_bytes())

    async def asked(self) -> int:
        """The call of a request for tokens."""
        message = await self.heard()
        assert isinstance(message, Generate)
        return message.call

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self.socket.send_bytes(frames.encode(message))

    async def describe(self) -> None:
        """Answer what must be a request for its description."""
        message = await self.heard()
        assert isinstance(message, InfoRequest)
        await self.say(InfoReply(message.call, await MockProtocol().rpc_info()))


@asynccontextmanager
async def node(
    manners: Callable[[Peer], Awaitable[None]], authorizer: AuthorizerBase | None = None
) -> AsyncIterator[WebSocketProtocol]:
    """What reaches a node that has these `manners` in each connection, and closes it then."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await manners(Peer(socket))
        return socket

    application = web.Application()
    application.router.add_get("/subnet", handler)
    async with TestServer(application) as server, asyncio.timeout(20):
        remote = WebSocketProtocol(str(server.make_url("/")), authorizer)
        try:
            yield remote
        finally:
            await remote.aclose()


def deltas(call: int, *said: Delta) -> Deltas:
    return columns.pack([(call, delta) for delta in said])


async def test_a_connection_that_is_lost() -> None:
    """Its calls fail at once, and the next one makes another."""

    async def once(peer: Peer) -> None:
        if isinstance(message := await peer.heard(), InfoRequest):
            await peer.say(InfoReply(message.call, await MockProtocol().rpc_info()))

    async with node(once) as remote:
        with pytest.raises(NodeLost, match="was lost"):
            await remote.rpc_inference(REQUEST, lambda delta: None)
        before = monotonic()
        assert (await remote.rpc_info()).engine == "mock"
        assert before < remote.last_received <= monotonic()


class Signing(TokenAuthorizer):
    """Takes its time."""

    def __init__(self) -> None:
        super().__init__("secret")
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def sign_request(self, request: RequestT) -> RequestT:
        self.begun.set()
        await self.go_on.wait()
        return await super().sign_request(request)


async def test_a_connection_that_is_lost_before_it_is_used() -> None:
    """Nothing is asked of it, and so nothing is waited for."""
    signing = Signing()

    async def leaves(peer: Peer) -> None:
        await peer.asked()

    async with node(leaves, signing) as remote:
        embedding = asyncio.create_task(remote.rpc_embed([token_ids([1])]))
        await signing.begun.wait()
        with pytest.raises(NodeLost):
            await remote.rpc_inference(REQUEST, lambda delta: None)
        signing.go_on.set()
        with pytest.raises(NodeLost):
            await embedding


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("hello", "sent a TEXT message: expected a binary message"),
        (frames.encode(Cancel(1)), "unexpected Cancel: only clients send it"),
        (bytes((frames.VERSION, 99)) + b"\x80", "unknown frame type 99"),
        (bytes((frames.VERSION, 7)) + b"\xc1", "invalid Deltas"),
        (frames.encode(Deltas(b"abc", b"", b"", b"", b"")), "truncated column"),
    ],
)
async def test_what_makes_no_sense(said: str | bytes, why: str) -> None:
    """It ends the connection, with a reason for either side."""
    codes = []

    async def nonsense(peer: Peer) -> None:
        await peer.asked()
        await (peer.socket.send_str(said) if isinstance(said, str) else peer.socket.send_bytes(said))
        message = await peer.socket.receive()
        codes.append((message.data, message.extra))

    async with node(nonsense) as remote:
        with pytest.raises(WireError, match=why):
            await remote.rpc_inference(REQUEST, lambda delta: None)
        while not codes:
            await asyncio.sleep(0.01)
    assert codes == [(aiohttp.WSCloseCode.PROTOCOL_ERROR, WireError.code)]


async def test_what_cannot_be_sent() -> None:
    """A request that no frame holds fails, and none of the others on its connection does."""
    given: list[list[int]] = []

    async def manners(peer: Peer) -> None:
        call = await peer.asked()
        # Of the calls that could not be made it hears that they are over.
        while isinstance(message := await peer.heard(), Cancel):
            pass
        assert isinstance(message, InfoRequest)
        await peer.say(InfoReply(message.call, await MockProtocol().rpc_info()), Accepted(call), deltas(call, END))
        await peer.socket.receive()

    large = msgspec.structs.replace(REQUEST, text="x" * frames.MAX_FRAME)
    odd = msgspec.structs.replace(REQUEST, text="\ud800")
    async with node(manners) as remote:
        other = asyncio.create_task(remote.rpc_inference(REQUEST, lambda delta: given.append(delta.tokens)))
        await asyncio.sleep(0)
        for request in (large, odd):
            with pytest.raises(InvalidRequest, match="cannot be sent"):
                await remote.rpc_inference(request, lambda delta: None)
        assert (await remote.rpc_info()).engine == "mock"
        await other
    assert given == [[8]]


async def test_a_refusal() -> None:
    """It comes with all that the node said of it."""

    async def full(peer: Peer) -> None:
        await peer.say(Failed(await peer.asked(), NodeBusy.code, "full", retry_after=3.5))
        await peer.heard()

    async with node(full) as remote:
        with pytest.raises(NodeBusy, match="full") as refused:
            await remote.rpc_inference(REQUEST, lambda delta: None)
    assert refused.value.retry_after == 3.5


async def test_tokens_before_the_check() -> None:
    """They are held until it is done, and then given in their order."""
    checked: list[Delta] = []
    given: list[Delta] = []

    async def hasty(peer: Peer) -> None:
        call = await peer.asked()
        await peer.say(Accepted(call), deltas(call, Delta(0, [7]), END))
        await peer.describe()

    async with node(hasty) as remote:

        async def check(accepted: Accepted) -> None:
            await remote.rpc_info()  # is answered after the tokens
            checked.extend(given)

        await remote.rpc_inference(REQUEST, given.append, check)
    assert checked == []
    assert [delta.tokens for delta in given] == [[7], [8]]


async def test_tokens_instead_of_a_proof() -> None:
    """Who did not say who it is is not believed a token."""

    async def stranger(peer: Peer) -> None:
        await peer.say(deltas(await peer.asked(), END))
        await peer.heard()

    async def check(accepted: Accepted) -> None:
        raise AssertionError

    given: list[Delta] = []
    async with node(stranger) as remote:
        with pytest.raises(Unauthorized):
            await remote.rpc_inference(REQUEST, given.append, check)
    assert given == []


async def test_an_answer_that_ended_is_not_cancelled() -> None:
    """The node hears no more of it."""

    async def whole(peer: Peer) -> None:
        call = await peer.asked()
        await peer.say(Accepted(call), deltas(call, END))
        await peer.describe()

    async with node(whole) as remote:
        await remote.rpc_inference(REQUEST, lambda delta: None)
        assert (await remote.rpc_info()).engine == "mock"


async def test_first_tokens_come_first() -> None:
    """Of one frame, before what others go on with; those of one answer stay in their order."""
    given: list[tuple[str, list[int]]] = []

    async def busy(peer: Peer) -> None:
        old = await peer.asked()
        await peer.say(Accepted(old), deltas(old, Delta(0, [1])))
        new = await peer.asked()
        rows = [(old, Delta(0, [2])), (new, Delta(0, [7])), (old, END), (new, END)]
        await peer.say(Accepted(new), columns.pack(rows))
        await peer.socket.receive()

    async def ask(remote: WebSocketProtocol, name: str) -> None:
        await remote.rpc_inference(REQUEST, lambda delta: given.append((name, delta.tokens)))

    async with node(busy) as remote:
        first = asyncio.create_task(ask(remote, "old"))
        while not given:
            await asyncio.sleep(0.001)
        await ask(remote, "new")
        await first
    assert given == [("old", [1]), ("new", [7]), ("new", [8]), ("old", [2]), ("old", [8])]


async def test_who_takes_no_more() -> None:
    """What it raises ends the call, here and at the node; it is given nothing after that."""
    heard: list[Message] = []
    given: list[list[int]] = []

    async def talkative(peer: Peer) -> None:
        call = await peer.asked()
        await peer.say(Accepted(call), deltas(call, Delta(0, [7]), END))
        heard.append(await peer.heard())

    def take(delta: Delta) -> None:
        given.append(list(delta.tokens))
        raise ZeroDivisionError

    async with node(talkative) as remote:
        with pytest.raises(ZeroDivisionError):
            await remote.rpc_inference(REQUEST, take)
        while not heard:
            await asyncio.sleep(0.01)
    assert given == [[7]]
    assert heard == [Cancel(1)]
