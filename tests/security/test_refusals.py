"""Nodes that refuse valid requests as invalid, and clients whose requests are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from adapter.config import Settings
from subnet import Limits, RemoteManager, Sampling, SessionManager
from subnet.client.race import Hedger
from subnet.errors import ContentRefused, ContextLengthExceeded, InvalidRequest, NodeError, NodeLost, RequestError
from subnet.generation import TokenLogprobs
from subnet.node_info import Capabilities, Placement
from subnet.protocols.mock import MockProtocol, Pause, Step
from subnet.tensors import TokenIds, token_ids
from subnet.wire.messages import Generate
from tests.fakes import ASK, gateway, saying
from tests.security.test_names import SCORED
from tests.subnet.pool.test_remote_manager import Clock, until

EVIL = "Invalid value: pay at evil.example\n\x1b[2Jnode healthy"
REFUSED = InvalidRequest(EVIL, param="prompt")
CAPABLE = Capabilities(resume="exact", embeddings=True, prompt_logprobs=True, top_logprobs=5)


class Refusing(MockProtocol):
    """Node that refuses everything; `asked` counts how often."""

    def __init__(self, error: Exception = REFUSED, *, peer: str = "liar", first: Sequence[Step] = ()) -> None:
        super().__init__([*first, error], peer=peer, capabilities=CAPABLE)
        self.error, self.asked = error, 0

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> Any:
        self.asked += 1
        raise self.error

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        self.asked += 1
        raise self.error

    async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
        self.asked += 1
        raise self.error

    async def rpc_inference(self, *arguments: Any) -> None:
        self.asked += 1
        await super().rpc_inference(*arguments)


def honest(peer: str = "honest", text: str = "Hello.") -> MockProtocol:
    return MockProtocol(list(text.encode()), peer=peer, capabilities=CAPABLE)


@asynccontextmanager
async def sessions(*nodes: MockProtocol, clock: Clock | None = None, **more: Any) -> AsyncIterator[SessionManager]:
    async with RemoteManager(nodes, probe_interval=60.0, clock=clock or Clock()) as manager:
        await until(lambda: all(remote.info for remote in manager.remotes))
        yield SessionManager(manager, limits=Limits(queue_timeout=0.0), **more)


def manager_of(sessions: SessionManager) -> RemoteManager:
    return sessions._remote_manager


async def ask(sessions: SessionManager, prompt: int = 1, sampling: Sampling | None = None) -> bytes:
    async with sessions.session("mock") as session:
        deltas = session.generate([prompt], sampling)
        return bytes([token async for delta in deltas for token in delta.tokens])


def state_of(sessions: SessionManager, number: int = 0) -> str:
    manager = manager_of(sessions)
    return manager.status(manager.remotes[number]).state


async def test_a_liar_is_found_out() -> None:
    """What one node refuses and another serves is served. Refusals of one request, however often, may be a matter of
    opinion; those of different ones within a minute count, until the node is left out.
    """
    liar, clock = Refusing(), Clock()
    async with sessions(liar, honest(), clock=clock) as asked:
        for _ in range(10):
            assert await ask(asked, 1) == b"Hello."
        assert (liar.asked, state_of(asked)) == (10, "healthy")
        assert manager_of(asked).remotes[0].last_error == "refused a request as invalid that honest served"
        for number in range(2, 12, 2):
            clock.now += 60
            for _ in range(2):
                assert await ask(asked, number) == b"Hello."
        assert (liar.asked, state_of(asked)) == (20, "healthy")
        for number in range(20, 26):
            assert await ask(asked, number) == b"Hello."
        assert (liar.asked, state_of(asked)) == (23, "breaker-open")


async def test_clients_cannot_open_breakers() -> None:
    """Requests that two nodes refuse count against neither, however many and different: the client is at fault."""
    nodes = [Refusing(peer=name) for name in "abc"]
    async with sessions(*nodes) as asked:
        for number in range(1, 13):
            with pytest.raises(InvalidRequest):
                await ask(asked, number)
        assert [state_of(asked, number) for number in range(3)] == ["healthy"] * 3
    assert sum(node.asked for node in nodes) == 2 * 12


@pytest.mark.parametrize(
    ("error", "kind", "message", "param"),
    [
        (REFUSED, InvalidRequest, "Invalid value for 'prompt': the model's nodes do not accept it.", "prompt"),
        (InvalidRequest(EVIL), InvalidRequest, "The model's nodes do not accept this request.", None),
        (InvalidRequest(EVIL, param=EVIL), InvalidRequest, "The model's nodes do not accept this request.", None),
        (RequestError(EVIL), InvalidRequest, "The model's nodes do not accept this request.", None),
        (ContentRefused(EVIL), ContentRefused, "The model's nodes refuse the content of the request.", None),
        (
            ContextLengthExceeded(EVIL),
            ContextLengthExceeded,
            "The request exceeds the context length of the model's nodes.",
            None,
        ),
    ],
    ids=["param", "plain", "evil param", "base", "content", "context"],
)
async def test_the_words_of_a_refusal(
    error: RequestError, kind: type[RequestError], message: str, param: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the gateway's own words; the node's are in the log, escaped and in one line."""
    async with sessions(Refusing(error)) as asked:
        with pytest.raises(kind) as caught:
            await ask(asked)
    assert (str(caught.value), caught.value.param) == (message, param)
    (line,) = (line for line in caplog.messages if "refused a request" in line)
    assert line.endswith(r"pay at evil.example\n\x1b[2Jnode healthy")
    assert line.isprintable()


async def test_what_the_gateway_can_see_itself() -> None:
    """A node that lacks a feature, or whose context is too short, is right: no other is asked, and it is not noted."""
    lacking = MockProtocol([REFUSED], peer="a")
    other = MockProtocol([REFUSED], peer="b")
    async with sessions(lacking, other) as asked:
        with pytest.raises(InvalidRequest, match="Unsupported value for 'top_k': this model does not support it"):
            await ask(asked, sampling=Sampling(top_k=3))
        assert len(lacking.requests) + len(other.requests) == 1
    short = MockProtocol([ContextLengthExceeded(EVIL)], context_length=1)
    async with sessions(short, MockProtocol([ContextLengthExceeded(EVIL)], peer="b", context_length=1)) as asked:
        with pytest.raises(ContextLengthExceeded, match="maximum context length is 1 tokens"):
            await ask(asked)


async def test_a_refusal_in_the_middle_of_an_answer() -> None:
    """It is a failure of the node: another one goes on, and without one the request is not said to be invalid."""
    liar = Refusing(first=list(b"Hel"))
    async with sessions(liar, honest()) as asked:
        assert await ask(asked) == b"Hello."
    assert liar.asked == 1
    async with sessions(liar) as asked:
        with pytest.raises(NodeError):
            await ask(asked)


async def test_a_node_that_changes_its_mind() -> None:
    """A node that serves what it has refused itself, as the other is gone, is not said to contradict another."""

    def script(request: Generate) -> list[Step]:
        return list(b"Hello.") if len(moody.requests) > 1 else [REFUSED]

    moody = MockProtocol(script, peer="moody", capabilities=CAPABLE)
    gone = MockProtocol([NodeLost("gone")], peer="gone", capabilities=CAPABLE)
    async with sessions(moody, gone) as asked:
        assert await ask(asked) == b"Hello."
        assert (len(moody.requests), len(gone.requests)) == (2, 1)
        assert manager_of(asked).remotes[0].last_error == ""


async def test_the_second_node_is_another() -> None:
    """Though the one that refused is preferred."""

    class Last(MockProtocol):
        def placement(self, model: str) -> Placement:
            return Placement(priority=1)

    liar = Refusing()
    async with sessions(liar, Last(list(b"Hello."), peer="honest", capabilities=CAPABLE)) as asked:
        assert await ask(asked) == b"Hello."
        assert np.shape(await asked.prompt_evaluator("mock").embed([token_ids([1])])) == (1, 8)
    assert liar.asked == 2


async def test_a_refusal_beside_a_hedge() -> None:
    """A node whose refusal comes after another one has been asked as well is noted, too."""
    liar = Refusing(first=[Pause(0.05)])
    slow = MockProtocol([Pause(0.2), *b"Hello."], peer="honest", capabilities=CAPABLE)
    async with sessions(liar, slow, hedger=Hedger(0.5, share=1.0)) as asked:
        for remote in manager_of(asked).remotes:
            remote.deployment("mock").first_token_times.extend([0.001] * 40)
        assert await ask(asked) == b"Hello."
        assert liar.asked == 1
        assert "that honest served" in manager_of(asked).remotes[0].last_error


async def test_texts_without_an_answer() -> None:
    """Embeddings, prompt logprobs and token ids that one node refuses come from another; or the client gets the
    gateway's own words.
    """
    liar = Refusing()
    async with sessions(liar, honest()) as asked:
        evaluator = asked.prompt_evaluator("mock")
        sha256 = manager_of(asked).models()["mock"].tokenizer
        for number in range(4):
            assert np.shape(await evaluator.embed([token_ids([number])])) == (1, 8)
            assert len(await evaluator.score(token_ids([number, 2]), 1)) == 1
        assert (liar.asked, state_of(asked)) == (4, "breaker-open")
    three = [Refusing(peer=name) for name in "abc"]
    async with sessions(*three) as asked:
        with pytest.raises(InvalidRequest):
            await manager_of(asked).tokenize(sha256, ["x"])
        assert [node.asked for node in three] == [1, 1, 0]
    async with sessions(liar) as asked:
        evaluator = asked.prompt_evaluator("mock")
        for work in (
            evaluator.embed([token_ids([1])]),
            evaluator.score(token_ids([1, 2]), 1),
            manager_of(asked).tokenize(sha256, ["x"]),
        ):
            with pytest.raises(InvalidRequest, match=r"[Tt]he model's nodes"):
                await work


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", ASK),
        ("chat/completions", ASK | {"stream": True}),
        ("completions", {"model": "mock", "prompt": "Hi"}),
        ("completions", SCORED),
        ("embeddings", {"model": "mock", "input": "Hi"}),
    ],
    ids=["chat", "stream", "text", "score", "embed"],
)
async def test_nothing_of_a_node_reaches_a_client(path: str, body: dict[str, Any]) -> None:
    """On no endpoint; an honest stream of another model beside it is complete."""
    settings = Settings(access_log=False)
    async with gateway(Refusing(), saying("Honest.", peer="aside", model="aside"), settings=settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            response = await http.post(f"/v1/{path}", json=body)
            aside = await http.post("/v1/chat/completions", json=ASK | {"model": "aside"})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert "evil" not in response.text
    assert aside.json()["choices"][0]["message"]["content"] == "Honest."
