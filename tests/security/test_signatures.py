"""Signatures with the shared secret: what they cover, how long they hold, and whom they are for."""

from __future__ import annotations

import asyncio
import math
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet import Sampling, TokenAuthorizer
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.errors import NodeBusy, Unauthorized, from_code
from subnet.generation import Delta
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.protocols.websocket import WebSocketProtocol
from subnet.tensors import pack, token_ids
from subnet.wire import frames
from subnet.wire.messages import (
    Accepted,
    Auth,
    ChoiceStart,
    Deltas,
    EmbedRequest,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
    Request,
    Signed,
)

PROMPT = pack(token_ids([1]))
SKEW = 60.0
START = 1_000_000.0
# The smallest difference of times of this size.
EPSILON = math.ulp(START + 3 * SKEW)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def pair(**options: Any) -> tuple[Clock, TokenAuthorizer, Clock, TokenAuthorizer]:
    """Return a client and a node with a clock of its own each."""
    ours, theirs = Clock(), Clock()
    return ours, TokenAuthorizer("s", clock=ours), theirs, TokenAuthorizer("s", clock=theirs, **options)


@pytest.mark.parametrize("ahead", [SKEW, -SKEW])
async def test_the_bounds_of_the_clocks(ahead: float) -> None:
    """A signature is accepted up to exactly `max_clock_skew` in either direction, and refused beyond it."""
    ours, client, _, node = pair()
    ours.now += ahead
    await node.validate_request(b"content", await client.sign_request(b"content", "n"))
    ours.now += math.copysign(EPSILON, ahead)
    with pytest.raises(Unauthorized, match=r"the clocks differ by 60 s, more than the maximum of 60 s"):
        await node.validate_request(b"content", await client.sign_request(b"content", "n"))


@pytest.mark.parametrize("ahead", [SKEW, -SKEW])
async def test_the_bounds_of_the_clocks_for_responses(ahead: float) -> None:
    _, client, theirs, node = pair()
    request = await client.sign_request(b"content", "n")
    theirs.now += ahead
    await client.validate_response(b"reply", await node.sign_response(b"reply", request), request)
    theirs.now += math.copysign(EPSILON, ahead)
    with pytest.raises(Unauthorized, match="the clocks differ"):
        await client.validate_response(b"reply", await node.sign_response(b"reply", request), request)


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf])
async def test_times_that_are_no_times(time: float) -> None:
    ours, client, _, node = pair()
    ours.now = time
    with pytest.raises(Unauthorized):
        await node.validate_request(b"content", await client.sign_request(b"content", "n"))


@pytest.mark.parametrize("ahead", [SKEW, 0.0, -SKEW])
async def test_a_request_is_accepted_once(ahead: float) -> None:
    """A request that was accepted is refused as a replay for as long as its signature holds, to the last moment."""
    ours, client, theirs, node = pair()
    ours.now += ahead
    auth = await client.sign_request(b"content", "n")
    await node.validate_request(b"content", auth)
    for now in (START, auth.time, auth.time + SKEW):
        theirs.now = now
        # Each further request drops the nonces that have expired.
        await node.validate_request(b"other", msgspec.structs.replace(await client.sign_request(b"other", "n")))
        ours.now = now
        with pytest.raises(Unauthorized, match="replayed request"):
            await node.validate_request(b"content", auth)
    theirs.now += EPSILON
    with pytest.raises(Unauthorized, match="the clocks differ"):
        await node.validate_request(b"content", auth)


async def test_nonces_are_forgotten() -> None:
    """A nonce takes memory for twice the skew, not longer; and there are never more than the maximum."""
    ours, client, theirs, node = pair(max_nonces=2)
    for _ in range(2):
        await node.validate_request(b"content", await client.sign_request(b"content", "n"))
    refused = await client.sign_request(b"content", "n")
    with pytest.raises(NodeBusy, match="maximum of signed requests within 120 s"):
        await node.validate_request(b"content", refused)
    ours.now = theirs.now = START + 2 * SKEW
    with pytest.raises(NodeBusy):
        await node.validate_request(b"content", await client.sign_request(b"content", "n"))
    ours.now = theirs.now = START + 2 * SKEW + EPSILON
    for _ in range(2):
        await node.validate_request(b"content", await client.sign_request(b"content", "n"))


async def test_nonces_of_any_clock_are_forgotten_alike() -> None:
    """How long a nonce takes memory depends on when its request arrived, not on the clock of the client."""
    ours, client, theirs, node = pair(max_nonces=1)
    ours.now += SKEW
    await node.validate_request(b"content", await client.sign_request(b"content", "n"))
    ours.now = theirs.now = START + 2 * SKEW + EPSILON
    await node.validate_request(b"content", await client.sign_request(b"content", "n"))


async def test_strangers_take_no_memory() -> None:
    """Nonces of requests that are not signed with the secret, or too old, are not remembered."""
    _, _, _, node = pair()
    strangers = TokenAuthorizer("another", clock=Clock())
    late, late_clock = TokenAuthorizer("s", clock=(clock := Clock())), clock
    late_clock.now -= 2 * SKEW
    for client in (strangers, late):
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await node.validate_request(b"content", await client.sign_request(b"content", "n"))
    assert not node._nonces


@given(st.binary(min_size=1, max_size=64), st.data())
def test_every_bit_is_covered(content: bytes, data: st.DataObject) -> None:
    """A change of the content, or of anything that is sent with it, is noticed."""

    async def check() -> None:
        _, client, _, node = pair()
        auth = await client.sign_request(content, "node-1")
        position = data.draw(st.integers(0, 8 * len(content) - 1))
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        changes: dict[str, Any] = {
            "node": "node-2",
            "nonce": bytes(16),
            "time": auth.time + 1,
            "scheme": "hmac-sha1",
            "signature": auth.signature[:-1],
        }
        wrong = [(bytes(changed), auth), (content + b"\0", auth), (content[:-1], auth)]
        wrong += [(content, msgspec.structs.replace(auth, **{name: value})) for name, value in changes.items()]
        for some, signature in wrong:
            with pytest.raises(Unauthorized, match="invalid signature"):
                await node.validate_request(some, signature)
        await node.validate_request(content, auth)

    asyncio.run(check())


async def test_a_response_belongs_to_its_request() -> None:
    """A response to one request is refused for another, and neither passes for the other kind of message."""
    _, client, _, node = pair()
    one, two = await client.sign_request(b"content", "n"), await client.sign_request(b"content", "n")
    response = await node.sign_response(b"content", one)
    await client.validate_response(b"content", response, one)
    for auth, request in ((response, two), (one, one), (one, two)):
        with pytest.raises(Unauthorized, match="invalid signature"):
            await client.validate_response(b"content", auth, request)
    nameless = await node.sign_response(b"content", msgspec.structs.replace(one, nonce=b""))
    for auth in (response, nameless):
        with pytest.raises(Unauthorized, match="invalid signature"):
            await node.validate_request(b"content", auth)


# Real nodes, over real sockets.

FAST = EchoOptions(rate=0.0, size=8)
PACED = EchoOptions(rate=100.0, size=80)


@asynccontextmanager
async def nodes(count: int = 2, options: EchoOptions = FAST) -> AsyncIterator[list[tuple[Node, str]]]:
    """Run nodes with the same secret."""
    if not count:
        yield []
        return
    async with EchoEngine(options=options) as engine:
        node = Node(engine, TokenAuthorizer("secret"))
        async with listening(node, "127.0.0.1", 0) as address, nodes(count - 1, options) as others:
            yield [(node, address), *others]


def generate(call: int = 1) -> Generate:
    start = ChoiceStart(0, pack(token_ids([])))
    return Generate(call=call, model=None, prompt=pack(token_ids([1])), sampling=Sampling(), starts=(start,))


async def signed(request: Request, node: str, secret: str = "secret") -> Signed:
    content = frames.encode(request)
    return Signed(request.call, await TokenAuthorizer(secret).sign_request(content, node), content)


async def send(socket: aiohttp.ClientWebSocketResponse, message: Message) -> Message:
    await socket.send_bytes(frames.encode(message))
    return frames.decode(await socket.receive_bytes())


def refusal(message: Message) -> str:
    assert isinstance(message, Failed)
    assert isinstance(from_code(message.code, message.message), Unauthorized)
    return message.message


@pytest.mark.parametrize("request_", [generate(), InfoRequest(1)], ids=["generate", "info"])
async def test_a_relayed_request_is_refused(request_: Request) -> None:
    """A request for one node that somebody passes on to another with the same secret is refused there; the node that
    it is meant for accepts it, once.
    """
    async with nodes() as ((one, first), (_, second)), aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with http.ws_connect(first + "/subnet") as to_first, http.ws_connect(second + "/subnet") as to_second:
            message = await signed(request_, one.id)
            assert refusal(await send(to_second, message)) == "the request is signed for another node"
            assert isinstance(await send(to_first, message), Signed)
        async with http.ws_connect(first + "/subnet") as again:
            assert "replayed" in refusal(await send(again, message))


async def test_only_the_id_is_given_to_requests_for_nobody() -> None:
    """A request that names no node gets the description of the node, which has its id, and nothing else."""
    async with nodes(1) as ((node, address),), aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with http.ws_connect(address + "/subnet") as socket:
            assert refusal(await send(socket, await signed(generate(), ""))) == "the request is signed for another node"
            reply = await send(socket, await signed(InfoRequest(2), ""))
            assert isinstance(reply, Signed)
            info = frames.decode_content(reply)
            assert isinstance(info, InfoReply)
            assert info.info.node_id == node.id


async def test_requests_to_a_node_before_it_restarted() -> None:
    """A recorded request is refused by the node that comes after, which knows no nonces: it has another id."""
    async with nodes(1) as ((before, _),):
        message = await signed(generate(), before.id)
    async with nodes(1) as ((_, address),), aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with http.ws_connect(address + "/subnet") as socket:
            assert refusal(await send(socket, message)) == "the request is signed for another node"


async def test_another_call_in_it() -> None:
    """What is signed belongs to the call that it names: nobody can answer one call with the content of another."""
    async with nodes(1) as ((node, address),), aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with http.ws_connect(address + "/subnet") as socket:
            message = msgspec.structs.replace(await signed(generate(1), node.id), call=2)
            answer = await send(socket, message)
            assert isinstance(answer, Failed)
            assert (answer.call, answer.code) == (2, "wire_error")


async def test_a_signed_reply_is_no_request() -> None:
    """A node refuses what only nodes send, also if it is signed with the secret for this node."""
    async with nodes(1) as ((node, address),), aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with http.ws_connect(address + "/subnet") as socket:
            content = frames.encode(Accepted(1))
            message = Signed(1, await TokenAuthorizer("secret").sign_request(content, node.id), content)
            answer = await send(socket, message)
            assert isinstance(answer, Failed)
            assert (answer.code, answer.message) == ("wire_error", "unexpected Accepted: only nodes send it")


async def test_content_of_strangers_is_not_decoded() -> None:
    """What is not signed with the secret is refused unread, however large or broken; an honest answer beside it is
    complete, and the node's memory does not grow.
    """
    broken = frames.encode(EmbedRequest(model=None, inputs=()))[:2] + b"\xc1" * 100
    large, too_large = (
        frames.encode(
            Generate(call=1, model="x", text="x" * size, prompt=generate().prompt, sampling=Sampling(), starts=())
        )
        for size in (2**20 - 1000, 2**20)
    )
    unsigned = [large] * 20
    auth = Auth(scheme="hmac-sha256", nonce=bytes(16), time=0.0, signature=bytes(32))
    async with nodes(1, PACED) as ((node, address),), aiohttp.ClientSession() as http, asyncio.timeout(60):
        gateway = WebSocketProtocol(address, TokenAuthorizer("secret"))
        async with http.ws_connect(address + "/subnet") as socket:
            expected, _ = await answer_of(gateway)
            tracemalloc.start()
            honest = asyncio.create_task(answer_of(gateway))
            while not honest.done():
                for frame in unsigned:
                    await socket.send_bytes(frame)
                    assert "not signed" in refusal(frames.decode(await socket.receive_bytes()))
                for content in (broken, large):
                    for wrong in (auth, msgspec.structs.replace(auth, node=node.id)):
                        assert refusal(await send(socket, Signed(1, wrong, content)))
            await socket.send_bytes(too_large)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            answer, gap = await honest
            print(f"largest gap of the honest answer: {gap:.3f} s")
            assert answer == expected
            memory, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert memory < 4 * 2**20
            assert not isinstance(node.authorizer, TokenAuthorizer) or len(node.authorizer._nonces) < 10
        async with http.ws_connect(address + "/subnet") as socket:
            await socket.send_bytes(frames.encode(Deltas(b"", b"", b"", b"", b""))[:2] + b"\xc1" * 100)
            assert "unexpected Deltas" in str((await socket.receive()).extra)
        await gateway.aclose()


async def answer_of(gateway: WebSocketProtocol) -> tuple[list[int], float]:
    """Return the tokens of an answer, and the longest time between two of them in seconds."""
    tokens: list[int] = []
    times: list[float] = []

    def emit(delta: Delta) -> None:
        tokens.extend(delta.tokens)
        times.append(monotonic())

    await gateway.rpc_inference(generate(), emit)
    return tokens, max((after - before for before, after in pairwise(times)), default=0.0)
