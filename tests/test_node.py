"""A node on a real socket: the wire, its capacity, its patience with strangers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray

from subnet import Limits, RemoteManager, Sampling, SessionManager, TokenAuthorizer
from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.errors import InvalidRequest, NodeBusy, NodeError, NodeLost, SessionClosed, Unauthorized, WireError
from subnet.generation import Delta, Grammar, Job, TokenLogprobs
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.node_info import Capabilities, TokenizerArtefact, digest
from subnet.protocols.websocket import WebSocketProtocol
from subnet.wire import frames
from subnet.wire.messages import Deltas, Failed
from subnet.wire.tensors import TokenIds, token_ids

PIECES = 64


@asynccontextmanager
async def node(
    options: EchoOptions | None = None, authorizer: TokenAuthorizer | None = None
) -> AsyncIterator[tuple[Node, str]]:
    async with EchoEngine(options=options or EchoOptions()) as engine:
        served = Node(engine, authorizer)
        async with listening(served, "127.0.0.1", 0) as address:
            yield served, address


@asynccontextmanager
async def protocol(address: str, authorizer: TokenAuthorizer | None = None) -> AsyncIterator[WebSocketProtocol]:
    made = WebSocketProtocol(address, authorizer)
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def sessions(*addresses: str, limits: Limits | None = None) -> AsyncIterator[SessionManager]:
    async with RemoteManager(addresses) as manager:
        await manager.ready()
        yield SessionManager(manager, limits=limits)


async def ask(manager: SessionManager, prompt: bytes, sampling: Sampling | None = None) -> list[int]:
    async with manager.session() as session:
        return [t async for delta in session.generate(list(prompt), sampling) for t in delta.tokens]


async def test_a_node_describes_itself() -> None:
    """From its address alone comes all that is needed to use it, the tokenizer included."""
    async with node() as (served, address), protocol(address) as remote:
        info = await remote.rpc_info()
        artefact = await remote.rpc_artefact(info.cards[0].tokenizer)
        assert (info.cards[0].id, info.capacity) == ("echo", served.engine.capacity)
        assert TokenizerArtefact.from_bytes(artefact).pieces[65] == b"A"
        with pytest.raises(NodeError, match="unknown artefact"):
            await remote.rpc_artefact(digest(b"other"))


async def test_many_sessions_share_one_connection() -> None:
    """A hundred answers at once come whole and apart, over one socket."""
    async with node(EchoOptions(rate=200.0, size=10)) as (_, address), sessions(address) as manager:
        prompts = [f"prompt {n}".encode() for n in range(100)]
        alone = [await ask(manager, prompt, Sampling(seed=n)) for n, prompt in enumerate(prompts[:3])]
        together = await asyncio.gather(*(ask(manager, p, Sampling(seed=n)) for n, p in enumerate(prompts)))
        assert together[:3] == alone
        assert len({tuple(tokens) for tokens in together}) == 100


async def test_frames_are_columnar() -> None:
    """One engine step is one frame, however many streams it advances."""
    async with node(EchoOptions(rate=50.0, size=5)) as (_, address), aiohttp.ClientSession() as http:
        async with http.ws_connect(address + "/subnet") as socket:
            for frame in opening_frames(20):
                await socket.send_bytes(frame)
            rows: list[int] = []
            while sum(rows) < 20 * 5:
                message = frames.decode(await socket.receive_bytes())
                if isinstance(message, Deltas):
                    rows.append(len(message.counts) // 2)
    assert len(rows) <= 7


def opening_frames(count: int) -> list[bytes]:
    from subnet.client.ledger.token import TokenLedger as Ledger
    from subnet.wire.messages import Generate
    from subnet.wire.tensors import token_ids

    ledger = Ledger(None, token_ids([1, 2]), Sampling(), 1, None)
    request = ledger.build_request(ledger.choices)
    return [
        frames.encode(Generate(call=n, model=None, prompt=request.prompt, sampling=Sampling(), starts=request.starts))
        for n in range(1, count + 1)
    ]


async def test_a_full_node_refuses() -> None:
    """Work above its capacity gets NodeBusy with a Retry-After, and the slots come back."""
    async with node(EchoOptions(rate=100.0, size=50, capacity=2)) as (served, address):
        async with sessions(address, limits=Limits(queue_timeout=0.0)) as manager:
            async with manager.session() as one, aclosing(one.generate([1], choices=2)) as deltas:
                await anext(deltas)
                with pytest.raises(NodeBusy) as caught:
                    await ask(manager, b"x")
                assert caught.value.retry_after
            await until(lambda: served.running == 0)


async def test_leaving_frees_the_engine() -> None:
    """A client that closes its iterator, or whose connection breaks, leaves no work behind."""
    async with node(EchoOptions(rate=20.0, size=1000)) as (served, address):
        async with sessions(address) as manager:
            async with manager.session() as session, aclosing(session.generate([1])) as deltas:
                await anext(deltas)
                assert served.running == 1
            await until(lambda: served.running == 0)
            running = asyncio.create_task(ask(manager, b"x"))
            await until(lambda: served.running == 1)
        with pytest.raises(SessionClosed):
            await running
        await until(lambda: served.running == 0)


async def test_secrets() -> None:
    """A node with a secret serves those who share it, and nobody else."""
    ours = TokenAuthorizer("ours")
    async with node(authorizer=ours) as (_, address):
        async with protocol(address, ours) as remote:
            assert (await remote.rpc_info()).cards[0].id == "echo"
        for stranger in (None, TokenAuthorizer("theirs")):
            async with protocol(address, stranger) as remote:
                with pytest.raises(Unauthorized):
                    await remote.rpc_info()


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x01\x05garbage", b"\x63\x01\x80", bytes((1, 7)) + b"\x80"])
async def test_malformed_bytes(garbage: bytes) -> None:
    """They close the connection with a reason; the node goes on serving others."""
    async with node() as (_, address), sessions(address) as manager:
        async with aiohttp.ClientSession() as http, http.ws_connect(address + "/subnet") as socket:
            await socket.send_bytes(garbage)
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == aiohttp.WSCloseCode.PROTOCOL_ERROR
            assert message.extra
        assert len(await ask(manager, b"x", Sampling(max_tokens=3))) == 3


async def test_an_unknown_frame_is_answered() -> None:
    """A frame of a later version gets one error; the connection stays."""
    async with node() as (_, address), aiohttp.ClientSession() as http:
        async with http.ws_connect(address + "/subnet") as socket:
            await socket.send_bytes(bytes((frames.VERSION, 99)) + b"\x80")
            answer = frames.decode(await socket.receive_bytes())
            assert isinstance(answer, Failed)
            assert "99" in answer.message
            await socket.send_bytes(opening_frames(1)[0])
            assert frames.decode(await socket.receive_bytes())


class Broken(EchoEngine):
    """Breaks in the middle of every answer, with an error that is nobody's contract."""

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        emit(Delta(0, [65]))
        raise ZeroDivisionError("secret detail")


async def test_an_engine_that_breaks() -> None:
    """The client hears that it broke, not how; the slot is free again."""
    engine: Engine = Broken()
    async with engine, listening(served := Node(engine), "127.0.0.1", 0) as address:
        async with sessions(address, limits=Limits(max_attempts=1)) as manager:
            with pytest.raises(NodeError) as caught:
                await ask(manager, b"x")
    assert "secret" not in str(caught.value)
    assert served.running == 0


async def test_a_node_that_is_not_there() -> None:
    """Nobody listening is NodeLost, with the address in the message."""
    async with protocol("http://127.0.0.1:9") as remote:
        with pytest.raises(NodeLost, match=r"127\.0\.0\.1:9"):
            await remote.rpc_info()


async def test_a_node_that_comes_back() -> None:
    """A node that restarts under the same address serves again, without being named anew."""
    async with EchoEngine() as engine:
        async with listening(Node(engine), "127.0.0.1", 0) as address:
            port = int(address.rpartition(":")[2])
            manager = RemoteManager([address], probe_interval=0.1)
            await manager.__aenter__()
            await manager.ready()
        sessions_of = SessionManager(manager, limits=Limits(max_attempts=1))
        with pytest.raises((NodeError,)):
            await ask(sessions_of, b"x")
        async with listening(Node(engine), "127.0.0.1", port):
            await manager.ready()
            assert await ask(sessions_of, b"x", Sampling(max_tokens=1))
            await manager.__aexit__(None, None, None)


async def until(condition: object) -> None:
    """Wait for what another task brings about; fails loudly if it never does."""
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_node_that_drains_finishes_what_runs() -> None:
    """It takes nothing new, and the answer under way comes whole."""
    async with node(EchoOptions(rate=200.0, size=20)) as (leaving, address), node() as (_, other):
        async with sessions(address) as manager, manager.session() as session:
            async with aclosing(session.generate([1], Sampling(seed=1))) as deltas:
                seen = (await anext(deltas)).tokens
                draining = asyncio.create_task(leaving.drain(10.0))
                seen += [t async for delta in deltas for t in delta.tokens]
            await draining
            assert len(seen) == 20
        async with sessions(address, other) as manager:
            assert await ask(manager, b"x")


async def test_a_node_that_drains_hands_over() -> None:
    """What is not finished in time goes on elsewhere, without an error."""
    options = EchoOptions(rate=100.0, size=60)
    async with node(options) as (one, first), node(options) as (two, second):
        async with sessions(first, second) as manager:
            whole = await ask(manager, b"x", Sampling(seed=1))
            async with manager.session() as session:
                deltas = session.generate(list(b"x"), Sampling(seed=1))
                seen = (await anext(deltas)).tokens
                await (one if one.running else two).drain(0.05)
                seen += [t async for delta in deltas for t in delta.tokens]
                assert seen == whole
                assert session.ledger is not None
                assert len(session.ledger.peers) == 2


class Plain(EchoEngine):
    """It declares nothing beyond what every engine does."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities()


BASIC = {"temperature", "top_p", "max_tokens", "seed", "stop_tokens"}
NOT_NEUTRAL: dict[str, Any] = {
    "logprobs": 0,
    "ignore_eos": True,
    "logit_bias": {1: 1.0},
    "grammar": Grammar("regex", "a"),
}


@pytest.mark.parametrize("param", sorted(set(Sampling.__struct_fields__) - BASIC))
async def test_what_the_engine_cannot_do(param: str) -> None:
    """Every field of Sampling that an engine does not declare is refused by name, and the node serves on."""
    async with Plain() as engine, listening(Node(engine), "127.0.0.1", 0) as address, sessions(address) as manager:
        with pytest.raises(InvalidRequest) as caught:
            await ask(manager, b"x", Sampling(**{param: NOT_NEUTRAL.get(param, 3)}))
        assert caught.value.param == param
        assert await ask(manager, b"x", Sampling(max_tokens=1))


class Capable(EchoEngine):
    """It declares all that can be declared."""

    def __init__(self) -> None:
        super().__init__()
        able: dict[str, Any] = {
            name: True for name in Capabilities.__struct_fields__ if isinstance(getattr(Capabilities(), name), bool)
        }
        self.capabilities = Capabilities(**able, top_logprobs=20, grammars=("json_schema", "regex", "lark"))


@pytest.mark.parametrize(
    ("param", "value"),
    [
        *((param, value) for param in ("top_p", "min_p", "typical_p") for value in (-0.1, 1.1, math.nan)),
        *((param, value) for param in ("frequency_penalty", "presence_penalty") for value in (math.inf, math.nan)),
        *(("repetition_penalty", value) for value in (0.0, -1.0, math.nan)),
        *(("temperature", value) for value in (-0.1, math.nan)),
        ("top_k", -2),
        ("logit_bias", {1: math.inf}),
    ],
)
async def test_what_makes_no_distribution(param: str, value: Any) -> None:
    """It is refused by name: no engine is to break of it, and no node to be blamed."""
    async with Capable() as engine, listening(Node(engine), "127.0.0.1", 0) as address, sessions(address) as manager:
        with pytest.raises(InvalidRequest) as caught:
            await ask(manager, b"x", Sampling(**{param: value}))
        assert caught.value.param == param


async def test_neutral_values_are_within_range() -> None:
    """The defaults, and the edges that clients use, pass; -1 is another way to say that top_k is off."""
    edges = Sampling(max_tokens=1, temperature=0.0, top_p=0.0, top_k=-1, min_p=1.0, typical_p=0.0)
    async with Capable() as engine, listening(Node(engine), "127.0.0.1", 0) as address, sessions(address) as manager:
        assert len(await ask(manager, b"x", Sampling(max_tokens=1))) == 1
        assert len(await ask(manager, b"x", edges)) == 1


class Reader(EchoEngine):
    """A text's embedding points to its first token; a token's logprob is minus its id."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(embeddings=True, prompt_logprobs=True, top_logprobs=3)
        self.asked: list[int] = []
        self.lost = 0
        self.begun = asyncio.Event()
        self.patience = asyncio.Event()
        self.patience.set()

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        self.asked.append(len(inputs))
        self.begun.set()
        await self.patience.wait()
        return np.eye(PIECES, dtype=np.float32)[[text[0] for text in inputs[self.lost :]]]

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        return [
            TokenLogprobs(-float(token), (token,) * width, (0.0,) * width) for token in tokens[1 + self.lost :].tolist()
        ]


@asynccontextmanager
async def reading_node(secret: str | None = None) -> AsyncIterator[tuple[Reader, Node, WebSocketProtocol]]:
    authorizer = TokenAuthorizer(secret) if secret else None
    async with Reader() as engine:
        served = Node(engine, authorizer)
        async with listening(served, "127.0.0.1", 0) as address, protocol(address, authorizer) as remote:
            yield engine, served, remote


@pytest.mark.parametrize("secret", [None, "shared"])
async def test_texts_are_read(secret: str | None) -> None:
    """Embeddings come in the order asked for, however many; scores one for each token but the first."""
    async with reading_node(secret) as (engine, served, remote):
        firsts = [n % PIECES for n in range(300)]
        vectors = await remote.rpc_embed([token_ids([first, 0]) for first in firsts])
        assert vectors.argmax(axis=1).tolist() == firsts
        assert engine.asked == [256, 44]
        assert (await remote.rpc_embed([])).size == 0
        assert await remote.rpc_score(token_ids([4, 2]), 1, "echo") == [TokenLogprobs(-2.0, (2,), (0.0,))]
        assert served.running == 0


async def test_what_cannot_be_read() -> None:
    """Another model, more logprobs than there are, and engines that read no texts are refused by name."""
    async with reading_node() as (_, _, remote):
        with pytest.raises(NodeError, match="unknown model: this node serves echo"):
            await remote.rpc_embed([token_ids([1])], "other")
        with pytest.raises(InvalidRequest, match="expected an integer between 0 and 3 for this model, but got 4"):
            await remote.rpc_score(token_ids([1]), 4)
    async with node() as (_, address), protocol(address) as remote:
        for refused in (remote.rpc_embed([token_ids([1])]), remote.rpc_score(token_ids([1]), 0)):
            with pytest.raises(InvalidRequest, match="This model does not support"):
                await refused


async def test_a_reply_of_another_shape_is_the_nodes_fault() -> None:
    """Fewer vectors than texts, or fewer scores than tokens, are noticed."""
    async with reading_node() as (engine, _, remote):
        engine.lost = 1
        with pytest.raises(WireError, match="2 texts"):
            await remote.rpc_embed([token_ids([1]), token_ids([2])])
        with pytest.raises(WireError, match="2 tokens"):
            await remote.rpc_score(token_ids([1, 2]), 0)


async def test_a_reading_that_is_given_up_frees_its_slot() -> None:
    """It counts as running while it lasts; cancelled, the next one is taken."""
    async with reading_node() as (engine, served, remote):
        engine.patience.clear()
        given_up = asyncio.create_task(remote.rpc_embed([token_ids([1])]))
        await engine.begun.wait()
        assert served.running == 1
        given_up.cancel()
        engine.patience.set()
        assert len(await remote.rpc_embed([token_ids([1])])) == 1
        assert served.running == 0


async def test_a_slot_is_free_once_it_was_cancelled() -> None:
    """With one slot, an answer that is given up makes room for the next request at once: none is refused."""
    async with node(EchoOptions(rate=100.0, capacity=1)) as (_, address):
        async with sessions(address, limits=Limits(queue_timeout=0.0)) as manager:
            for _ in range(10):
                async with manager.session() as session, aclosing(session.generate([1])) as deltas:
                    await anext(deltas)
