"""A node that claims a name which others serve: it gets no prompt, and changes nothing of what others get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from adapter.config import ModelSpec, Settings
from subnet.engines.echo import EchoEngine
from subnet.errors import NodeLost, WireError
from subnet.generation import Sampling, TokenLogprobs
from subnet.http.node_spec import NodeSpec
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.node_info import Capabilities, NodeInfo, Placement
from subnet.protocols.mock import MockProtocol
from subnet.protocols.openai import OpenAIProtocol
from subnet.protocols.websocket import WebSocketProtocol
from subnet.tensors import TokenIds, token_ids
from tests.fakes import ASK, PROMPT, gateway, saying
from tests.provider import Provider, answer, embeddings_of
from tests.security.test_signatures import generate
from tests.test_providers import node_of

EVIL = "{% for m in messages %}EVIL {{ m.content }}{% endfor %}"
CAPABLE = Capabilities(resume="exact", embeddings=True, prompt_logprobs=True, top_logprobs=5)
TEXT = "From the owner."
SCORED = {"model": "mock", "prompt": "Hi", "echo": True, "logprobs": 1, "max_tokens": 0}


class Member(MockProtocol):
    """Node that can be down, and that records everything it is asked with."""

    def __init__(self, *, named: bool = False, up: bool = True, **options: Any) -> None:
        super().__init__(list(options.pop("text", TEXT).encode()), capabilities=CAPABLE, **options)
        self.up = up
        self.asked: list[str] = []
        self._named = named

    def placement(self, model: str) -> Placement:
        return Placement(named=self._named and model == "mock")

    async def rpc_info(self) -> NodeInfo:
        self._check()
        return await super().rpc_info()

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> Any:
        self._record("embed")
        return await super().rpc_embed(inputs, model)

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        self._record("score")
        return await super().rpc_score(tokens, width, model)

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        self._record("tokenize")
        return [token_ids([1]) for _ in texts]

    async def rpc_inference(self, *arguments: Any) -> None:
        self._record("generate")
        await super().rpc_inference(*arguments)

    def _record(self, what: str) -> None:
        self._check()
        self.asked.append(what)

    def _check(self) -> None:
        if not self.up:
            raise NodeLost(f"{self.peer} is down")


def thief(**options: Any) -> Member:
    return Member(peer="thief", chat_template=EVIL, text="From the thief.", capacity=4096, **options)


@asynccontextmanager
async def clients(*nodes: Any) -> AsyncIterator[httpx.AsyncClient]:
    # The settings promise the model, as those do that name it for a node.
    settings = Settings(access_log=False, models={"mock": ModelSpec()})
    async with gateway(*nodes, settings=settings) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield http


async def states(http: httpx.AsyncClient) -> dict[str, str]:
    return {row["peer"]: row["state"] for row in (await http.get("/nodes")).json()["nodes"]}


async def until(http: httpx.AsyncClient, **expected: str) -> None:
    async with asyncio.timeout(10):
        while expected.items() - (await states(http)).items():
            await asyncio.sleep(0.01)


async def everything(http: httpx.AsyncClient) -> list[Any]:
    """Return the answers of every endpoint that sends text to a node or renders it."""
    texts: list[Any] = []
    rendered = await http.post("/v1/chat/completions/render", json=ASK)
    chat = await http.post("/v1/chat/completions", json=ASK)
    stream = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
    text = await http.post("/v1/completions", json=SCORED)
    embedded = await http.post("/v1/embeddings", json={"model": "mock", "input": "Hi"})
    tokens = await http.post("/tokenize", json={"model": "mock", "prompt": "Hi"})
    for response in (rendered, chat, stream, text, embedded, tokens):
        body = response.text if response is stream else response.json()
        texts.append((response.status_code, _without_ids(body)))
    return texts


def _without_ids(body: Any) -> Any:
    if isinstance(body, str):
        return "".join(
            event["choices"][0]["delta"].get("content") or ""
            for line in body.splitlines()
            if line.startswith("data: {") and (event := msgspec.json.decode(line[6:])).get("choices")
        )
    return {name: value for name, value in body.items() if name not in ("id", "created", "system_fingerprint")}


@pytest.mark.parametrize("named", [False, True], ids=["first", "named"])
async def test_a_thief_beside_the_owner(named: bool) -> None:
    """Before, while and after the owner of a name restarts, a node that claims it with a template and an answer of its
    own is asked nothing, and the answers of every endpoint are those without it, or a 503.

    Where the settings name the owner, it need neither be first in the table nor have been reached before.
    """
    async with clients(Member(peer="owner")) as http:
        expected = await everything(http)
    assert [status for status, _ in expected] == [200] * 6
    assert expected[0][1]["prompt"] == PROMPT
    owner, stolen, aside = Member(peer="owner", named=named, up=not named), thief(), saying("x", model="aside")
    async with clients(*([stolen, owner] if named else [owner, stolen]), aside) as http:
        await until(http, thief="mismatch")
        if named:
            assert {status for status, _ in await everything(http)} == {503}
            owner.up = True
        for _ in range(2):
            await until(http, owner="healthy", thief="mismatch")
            assert await everything(http) == expected
            owner.up = False
            await until(http, owner="unreachable", thief="mismatch")
            assert {status for status, _ in await everything(http)} == {503}
            owner.up = True
    assert stolen.asked == []


async def test_a_thief_in_the_middle_of_an_answer() -> None:
    """The owner dies in the middle of answers: the client gets an error, or the rest from a node with the same card,
    never a word of the thief. An honest stream of another model beside it is complete.
    """
    dying = Member(peer="owner")
    dying.script = [*TEXT.encode()[:5], NodeLost("killed")]
    stolen, heir = thief(), Member(peer="heir", up=False)
    aside = saying("An honest answer of another model.", model="aside")
    async with clients(dying, stolen, heir, aside) as http:
        for heir_up, content in ((False, TEXT[:5]), (True, TEXT)):
            heir.up = heir_up
            await until(http, owner="healthy", heir="healthy" if heir_up else "unreachable", thief="mismatch")
            asked = ASK | {"stream": True}
            honest, cut = await asyncio.gather(
                http.post("/v1/chat/completions", json=asked | {"model": "aside"}),
                http.post("/v1/chat/completions", json=asked),
            )
            assert _without_ids(honest.text) == "An honest answer of another model."
            assert _without_ids(cut.text) == content
            assert ("[DONE]" in cut.text) == heir_up
    assert stolen.asked == []


async def test_a_name_of_another_lane() -> None:
    """A node that takes token ids cannot claim the name of a provider's model, nor the other way round: not even as a
    fallback when the owner of the name fails.
    """
    provider = Provider(answer(TEXT), routes={"/v1/embeddings": embeddings_of([0.5])})
    stolen = thief()
    async with provider:
        async with clients(stolen, node_of(provider), saying("x", model="aside")) as http:
            await until(http, thief="mismatch")
            body = (await http.post("/v1/chat/completions", json=ASK)).json()
            embedded = await http.post("/v1/embeddings", json={"model": "mock", "input": "Hi"})
            assert (body["choices"][0]["message"]["content"], embedded.status_code) == (TEXT, 200)
    assert stolen.asked == []
    async with Provider(answer("From the thief."), models=("mock",)) as hostile:
        owner = Member(peer="owner")
        unnamed = OpenAIProtocol(NodeSpec(url=hostile.url, kind="openai", name="thief"))
        async with clients(owner, unnamed, saying("x", model="aside")) as http:
            await until(http, thief="mismatch")
            assert (await http.post("/v1/chat/completions", json=ASK)).json()["choices"][0]["message"][
                "content"
            ] == TEXT
            owner.up = False
            await until(http, owner="unreachable")
            for path, body in (("chat/completions", ASK), ("embeddings", {"model": "mock", "input": "Hi"})):
                assert (await http.post(f"/v1/{path}", json=body)).status_code == 503
        assert not hostile.chat_requests


async def test_a_node_serves_the_models_that_its_settings_name() -> None:
    """The setting `models` of a subnet node is all that it may serve, under the names that it has there."""
    async with EchoEngine("echo") as engine, listening(Node(engine), "127.0.0.1", 0) as url:
        for models, names in (({"mine": "echo"}, ["mine"]), ({"other": "other"}, []), ({}, ["echo"])):
            remote = WebSocketProtocol(url, models=models)
            assert [card.id for card in (await remote.rpc_info()).cards] == names
            for name in names:
                request = msgspec.structs.replace(generate(), model=name, sampling=Sampling(max_tokens=3))
                deltas = [delta async for delta in remote.rpc_inference_stream(request)]
                assert sum(len(delta.tokens) for delta in deltas) == 3
            await remote.aclose()


async def test_a_node_that_claims_another_lane() -> None:
    """A subnet node that says that it takes messages gets none: its description is refused."""

    class Claiming(Node):
        def info(self) -> NodeInfo:
            info = super().info()
            cards = [msgspec.structs.replace(info.cards[0], lane="chat", tokenizer="")]
            return msgspec.structs.replace(info, cards=tuple(cards))

    async with EchoEngine() as engine, listening(Claiming(engine), "127.0.0.1", 0) as url:
        remote = WebSocketProtocol(url)
        with pytest.raises(WireError, match="claims to serve a model on another lane"):
            await remote.rpc_info()
        await remote.aclose()
