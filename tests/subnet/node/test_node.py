"""A node on a real socket: wire protocol, capacity, shutdown, and invalid or unauthorised peers."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray
from yarl import URL

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
from subnet.tensors import TokenIds, token_ids
from subnet.wire import frames
from subnet.wire.messages import Deltas, Failed

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
async def serving(engine: Engine) -> AsyncIterator[str]:
    async with engine, listening(Node(engine), "127.0.0.1", 0) as address:
        yield address


@asynccontextmanager
async def protocol(address: str, authorizer: TokenAuthorizer | None = None) -> AsyncIterator[WebSocketProtocol]:
    remote = WebSocketProtocol(address, authorizer)
    try:
        yield remote
    finally:
        await remote.aclose()


@asynccontextmanager
async def sessions(*addresses: str, limits: Limits | None = None) -> AsyncIterator[SessionManager]:
    async with RemoteManager(addresses) as manager:
        await manager.ready()
        yield SessionManager(manager, limits=limits)


async def ask(manager: SessionManager, prompt: bytes, sampling: Sampling | None = None) -> list[int]:
    async with manager.session() as session:
        return [t async for delta in session.generate(list(prompt), sampling) for t in delta.tokens]


async def test_a_node_describes_itself() -> None:
    """A node's address is enough to get its description and its tokenizer."""
    async with node() as (served, address), protocol(address) as remote:
        info = await remote.rpc_info()
        artefact = await remote.rpc_artefact(info.cards[0].tokenizer)
        assert (info.cards[0].id, info.capacity) == ("echo", served.engine.capacity)
        assert TokenizerArtefact.from_bytes(artefact).pieces[65] == b"A"
        with pytest.raises(NodeError, match="unknown artefact"):
            await remote.rpc_artefact(digest(b"other"))


async def test_many_sessions_share_one_connection() -> None:
    """A hundred concurrent answers over one connection are complete and not mixed up."""
    async with node(EchoOptions(rate=200.0, size=10)) as (_, address), sessions(address) as manager:
        prompts = [f"prompt {n}".encode() for n in range(100)]
        alone = [await ask(manager, prompt, Sampling(seed=n)) for n, prompt in enumerate(prompts[:3])]
        together = await asyncio.gather(*(ask(manager, p, Sampling(seed=n)) for n, p in enumerate(prompts)))
        assert together[:3] == alone
        assert len({tuple(tokens) for tokens in together}) == 100


async def test_each_engine_step_is_one_frame() -> None:
    """The node sends one frame per engine step, however many streams the step advances."""
    async with node(EchoOptions(rate=50.0, size=5)) as (_, address), aiohttp.ClientSession() as http:
        async with http.ws_connect(address + "/subnet") as socket:
            for frame in generate_frames(20):
                await socket.send_bytes(frame)
            rows: list[int] = []
            while sum(rows) < 20 * 5:
                message = frames.decode(await socket.receive_bytes())
                if isinstance(message, Deltas):
                    rows.append(len(message.counts) // 2)
    assert len(rows) <= 7


def generate_frames(count: int) -> list[bytes]:
    from subnet.client.ledger.token import TokenLedger as Ledger
    from subnet.tensors import token_ids
    from subnet.wire.messages import Generate

    ledger = Ledger(None, token_ids([1, 2]), Sampling(), 1, None)
    request = ledger.build_request(ledger.choices)
    return [
        frames.encode(Generate(call=n, model=None, prompt=request.prompt, sampling=Sampling(), starts=request.starts))
        for n in range(1, count + 1)
    ]


async def test_a_gateway_that_leaves_during_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is reset before the WebSocket handshake is complete causes no error in the node's log."""
    handshake = (
        b"GET /subnet HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with node() as (_, address):
        url = URL(address)
        for _ in range(20):
            with socket.create_connection((url.host, url.port)) as client:
                client.sendall(handshake)
                # Closing resets the connection.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with sessions(address) as manager:
            assert await ask(manager, b"x")
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_full_node_rejects_requests() -> None:
    """A request beyond the node's capacity fails with NodeBusy and a Retry-After, and the slots are freed later."""
    async with node(EchoOptions(rate=100.0, size=50, capacity=2)) as (served, address):
        async with sessions(address, limits=Limits(queue_timeout=0.0)) as manager:
            async with manager.session() as one, aclosing(one.generate([1], choices=2)) as deltas:
                await anext(deltas)
                with pytest.raises(NodeBusy) as caught:
                    await ask(manager, b"x")
                assert caught.value.retry_after
            await until(lambda: served.running == 0)


async def test_disconnecting_frees_the_slots() -> None:
    """Closing the iterator or losing the connection frees the slots of a request."""
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


async def test_a_secret_is_required() -> None:
    """A node with a secret serves only clients that share it."""
    ours = TokenAuthorizer("ours")
    async with node(authorizer=ours) as (_, address):
        async with protocol(address, ours) as remote:
            assert (await remote.rpc_info()).cards[0].id == "echo"
        for unauthorised in (None, TokenAuthorizer("theirs")):
            async with protocol(address, unauthorised) as remote:
                with pytest.raises(Unauthorized):
                    await remote.rpc_info()


V = bytes((frames.VERSION,))


@pytest.mark.parametrize("garbage", [b"", V, V + b"\x05garbage", b"\x63\x01\x80", V + b"\x07\x80", V + b"\x10garbage"])
async def test_malformed_frames_close_the_connection(garbage: bytes) -> None:
    """A malformed frame closes its connection with a reason; other connections are not affected."""
    async with node() as (_, address), sessions(address) as manager:
        async with aiohttp.ClientSession() as http, http.ws_connect(address + "/subnet") as socket:
            await socket.send_bytes(garbage)
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == aiohttp.WSCloseCode.PROTOCOL_ERROR
            assert message.extra
        assert len(await ask(manager, b"x", Sampling(max_tokens=3))) == 3


async def test_an_unknown_frame_type_is_reported() -> None:
    """A frame of an unknown type gets an error, and the connection stays open."""
    async with node() as (_, address), aiohttp.ClientSession() as http:
        async with http.ws_connect(address + "/subnet") as socket:
            await socket.send_bytes(bytes((frames.VERSION, 99)) + b"\x80")
            answer = frames.decode(await socket.receive_bytes())
            assert isinstance(answer, Failed)
            assert "99" in answer.message
            await socket.send_bytes(generate_frames(1)[0])
            assert frames.decode(await socket.receive_bytes())


class FailingEngine(EchoEngine):
    """Engine that raises an undeclared error in the middle of every answer."""

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        emit(Delta(0, [65]))
        raise ZeroDivisionError("secret detail")


async def test_an_engine_error_is_not_disclosed() -> None:
    """A client learns that the engine failed but not why, and the slot is freed."""
    engine: Engine = FailingEngine()
    async with engine, listening(served := Node(engine), "127.0.0.1", 0) as address:
        async with sessions(address, limits=Limits(max_attempts=1)) as manager:
            with pytest.raises(NodeError) as caught:
                await ask(manager, b"x")
    assert "secret" not in str(caught.value)
    assert served.running == 0


async def test_an_unreachable_node_is_lost() -> None:
    """An address without a listener raises NodeLost, with the address in the message."""
    async with protocol("http://127.0.0.1:9") as remote:
        with pytest.raises(NodeLost, match=r"127\.0\.0\.1:9"):
            await remote.rpc_info()


async def test_a_restarted_node_is_used_again() -> None:
    """A node that restarts at the same address is used again."""
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
    """Wait until `condition` holds; fail after 10 s."""
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_draining_finishes_running_answers() -> None:
    """A draining node completes running answers and accepts no new requests."""
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


async def test_unfinished_answers_continue_elsewhere() -> None:
    """Answers still running when the drain timeout ends continue on another node without an error."""
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


class BasicEngine(EchoEngine):
    """Engine that declares no optional capability."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities()


ALWAYS_SUPPORTED = {"temperature", "top_p", "max_tokens", "seed", "stop_tokens"}
NON_DEFAULT: dict[str, Any] = {
    "logprobs": 0,
    "ignore_eos": True,
    "logit_bias": {1: 1.0},
    "grammar": Grammar("regex", "a"),
}


@pytest.mark.parametrize("param", sorted(set(Sampling.__struct_fields__) - ALWAYS_SUPPORTED))
async def test_unsupported_parameters_are_rejected(param: str) -> None:
    """A field of Sampling that the engine does not support is rejected by name, and the node serves on."""
    async with (
        BasicEngine() as engine,
        listening(Node(engine), "127.0.0.1", 0) as address,
        sessions(address) as manager,
    ):
        with pytest.raises(InvalidRequest) as caught:
            await ask(manager, b"x", Sampling(**{param: NON_DEFAULT.get(param, 3)}))
        assert caught.value.param == param
        assert await ask(manager, b"x", Sampling(max_tokens=1))


class CapableEngine(EchoEngine):
    """Engine that declares every capability."""

    def __init__(self) -> None:
        super().__init__()
        supported: dict[str, Any] = {
            name: True for name in Capabilities.__struct_fields__ if isinstance(getattr(Capabilities(), name), bool)
        }
        self.capabilities = Capabilities(**supported, top_logprobs=20, grammars=("json_schema", "regex", "lark"))


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
async def test_out_of_range_parameters_are_rejected(param: str, value: Any) -> None:
    """Sampling parameters out of range are rejected by name instead of failing the engine."""
    async with (
        CapableEngine() as engine,
        listening(Node(engine), "127.0.0.1", 0) as address,
        sessions(address) as manager,
    ):
        with pytest.raises(InvalidRequest) as caught:
            await ask(manager, b"x", Sampling(**{param: value}))
        assert caught.value.param == param


async def test_neutral_and_extreme_values_are_accepted() -> None:
    """Default values and the ends of each range are accepted; -1 disables top_k."""
    edges = Sampling(max_tokens=1, temperature=0.0, top_p=0.0, top_k=-1, min_p=1.0, typical_p=0.0)
    async with (
        CapableEngine() as engine,
        listening(Node(engine), "127.0.0.1", 0) as address,
        sessions(address) as manager,
    ):
        assert len(await ask(manager, b"x", Sampling(max_tokens=1))) == 1
        assert len(await ask(manager, b"x", edges)) == 1


class ReadingEngine(EchoEngine):
    """Engine whose embeddings point to a text's first token and whose logprobs are minus the token id."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(embeddings=True, prompt_logprobs=True, top_logprobs=3)
        self.batch_sizes: list[int] = []
        self.missing = 0
        self.started = asyncio.Event()
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        self.batch_sizes.append(len(inputs))
        self.started.set()
        await self.may_finish.wait()
        return np.eye(PIECES, dtype=np.float32)[[text[0] for text in inputs[self.missing :]]]

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        return [
            TokenLogprobs(-float(token), (token,) * width, (0.0,) * width)
            for token in tokens[1 + self.missing :].tolist()
        ]


@asynccontextmanager
async def reading_node(secret: str | None = None) -> AsyncIterator[tuple[ReadingEngine, Node, WebSocketProtocol]]:
    authorizer = TokenAuthorizer(secret) if secret else None
    async with ReadingEngine() as engine:
        served = Node(engine, authorizer)
        async with listening(served, "127.0.0.1", 0) as address, protocol(address, authorizer) as remote:
            yield engine, served, remote


@pytest.mark.parametrize("secret", [None, "shared"])
async def test_embeddings_and_scores(secret: str | None) -> None:
    """Embeddings are returned in the order requested, however many; scores cover every token but the first."""
    async with reading_node(secret) as (engine, served, remote):
        firsts = [n % PIECES for n in range(300)]
        vectors = await remote.rpc_embed([token_ids([first, 0]) for first in firsts])
        assert vectors.argmax(axis=1).tolist() == firsts
        assert engine.batch_sizes == [256, 44]
        assert (await remote.rpc_embed([])).size == 0
        assert await remote.rpc_score(token_ids([4, 2]), 1, "echo") == [TokenLogprobs(-2.0, (2,), (0.0,))]
        assert served.running == 0


async def test_invalid_embedding_and_score_requests_are_rejected() -> None:
    """An unknown model, too many logprobs, and engines without embeddings or scores are rejected by name."""
    async with reading_node() as (_, _, remote):
        with pytest.raises(NodeError, match="unknown model: this node serves echo"):
            await remote.rpc_embed([token_ids([1])], "other")
        with pytest.raises(InvalidRequest, match="expected an integer between 0 and 3 for this model, but got 4"):
            await remote.rpc_score(token_ids([1]), 4)
    async with node() as (_, address), protocol(address) as remote:
        for call in (remote.rpc_embed([token_ids([1])]), remote.rpc_score(token_ids([1]), 0)):
            with pytest.raises(InvalidRequest, match="This model does not support"):
                await call


async def test_replies_of_the_wrong_length_are_invalid() -> None:
    """A reply with fewer vectors than texts, or fewer scores than tokens, raises WireError."""
    async with reading_node() as (engine, _, remote):
        engine.missing = 1
        with pytest.raises(WireError, match="2 texts"):
            await remote.rpc_embed([token_ids([1]), token_ids([2])])
        with pytest.raises(WireError, match="2 tokens"):
            await remote.rpc_score(token_ids([1, 2]), 0)


async def test_cancelling_an_embedding_frees_its_slot() -> None:
    """An embedding occupies a slot while it runs, and frees it when it is cancelled."""
    async with reading_node() as (engine, served, remote):
        engine.may_finish.clear()
        cancelled = asyncio.create_task(remote.rpc_embed([token_ids([1])]))
        await engine.started.wait()
        assert served.running == 1
        cancelled.cancel()
        engine.may_finish.set()
        assert len(await remote.rpc_embed([token_ids([1])])) == 1
        assert served.running == 0


async def test_cancelling_frees_the_slot_for_the_next_request() -> None:
    """A slot freed by cancellation is available to the next request, which is not rejected."""
    async with node(EchoOptions(rate=100.0, capacity=1)) as (_, address):
        async with sessions(address, limits=Limits(queue_timeout=0.0)) as manager:
            for _ in range(10):
                async with manager.session() as session, aclosing(session.generate([1])) as deltas:
                    await anext(deltas)


class Tokenizing(EchoEngine):
    """Echo engine that tokenizes texts to the numbers of their characters."""

    async def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        if "" in texts:
            raise InvalidRequest("empty", param="messages")
        return [token_ids([*map(ord, text)]) for text in texts]


@pytest.mark.parametrize("secret", [None, "secret"])
async def test_tokenization_on_the_node(secret: str | None) -> None:
    """A node returns the token ids of texts, in parts if there are many, to those who know its tokenizer."""
    authorizer = None if secret is None else TokenAuthorizer(secret)
    async with Tokenizing() as engine, listening(Node(engine, authorizer), "127.0.0.1", 0) as address:
        async with protocol(address, authorizer) as remote:
            sha256 = engine.card.tokenizer
            found = await remote.rpc_tokenize(["ab", "\u65e5"], sha256)
            assert [ids.tolist() for ids in found] == [[97, 98], [0x65E5]]
            assert len(await remote.rpc_tokenize(["a"] * 5000, sha256)) == 5000
            long = ["\u65e5" * 1_000_000, "a", "\u65e5" * 500_000]
            assert [len(ids) for ids in await remote.rpc_tokenize(long, sha256)] == [len(text) for text in long]
            with pytest.raises(InvalidRequest, match="empty") as refused:
                await remote.rpc_tokenize([""], sha256)
            assert refused.value.param == "messages"
            with pytest.raises(InvalidRequest, match="at most 4194304 bytes"):
                await remote.rpc_tokenize(["\u65e5" * 1_400_000], sha256)
            with pytest.raises(NodeError, match="unknown artefact"):
                await remote.rpc_tokenize(["a"], "0" * 64)


async def test_an_engine_without_a_tokenizer() -> None:
    """A node whose engine does not tokenize says so, and stays connected."""
    async with node() as (served, address), protocol(address) as remote:
        with pytest.raises(InvalidRequest, match="does not tokenize"):
            await remote.rpc_tokenize(["a"], served.engine.card.tokenizer)
        assert (await remote.rpc_info()).running == 0
