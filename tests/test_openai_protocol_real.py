"""llama.cpp's own server with a real small model, as an OpenAI-compatible server on the chat lane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from subnet.chat import ChatRequest
from subnet.errors import ContextLengthExceeded, NodeLost
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from tests.chat_node import Heard, heard_of, node
from tests.llama_server import llama_server

COUNT = [{"role": "user", "content": "Count from one to ten in words."}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llama_server(slots=2) as running:
        yield running.url


async def busy_slots(url: str) -> int:
    async with HttpClient(NodeSpec(url=url)) as http:
        return sum(slot["is_processing"] for slot in await http.get("/slots"))


@pytest.mark.parametrize("kind", ["llama-server", "openai", None])
async def test_an_answer_is_streamed(url: str, kind: str | None) -> None:
    """The same whatever the server is taken for, with what it used."""
    async with node(url, kind=kind) as protocol:
        (card,) = (await protocol.rpc_info()).cards
        assert (card.context_length, card.lane, card.modalities) == (512, "chat", ())
        heard = await heard_of(protocol, messages=COUNT, temperature=0, max_completion_tokens=12)
    assert heard.finishes() == ["length"]
    assert sum(bool(delta.text) for delta in heard.deltas) > 6
    assert heard.usage is not None
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens) == (38, 12)


async def test_an_answer_ends_by_itself(url: str) -> None:
    """With a stop string, too."""
    async with node(url, kind="llama-server") as protocol:
        heard = await heard_of(protocol, messages=COUNT, temperature=0, stop=["2"], max_tokens=50)
    assert heard.finishes() == ["stop"]
    assert heard.text()
    assert "2" not in heard.text()


async def test_an_answer_that_was_begun_goes_on(url: str) -> None:
    """With what an undisturbed one would have said, and without the beginning."""
    async with node(url, kind="llama-server") as protocol:
        prefix = "One, two, three,"
        longer = await heard_of(protocol, messages=COUNT, temperature=0, max_tokens=16, prefix=prefix)
        first = await heard_of(protocol, messages=COUNT, temperature=0, max_tokens=4, prefix=prefix)
        rest = await heard_of(protocol, messages=COUNT, temperature=0, max_tokens=12, prefix=prefix + first.text())
    assert first.text().startswith(" four")
    assert longer.text() == first.text() + rest.text()


async def test_several_choices_are_counted_together(url: str) -> None:
    """Each with a seed of its own."""
    async with node(url, kind="llama-server") as protocol:
        heard = await heard_of(protocol, messages=COUNT, choices=(0, 1), seed=5, max_tokens=10)
    assert heard.finishes(0) == heard.finishes(1) == ["length"]
    assert heard.text(0) != heard.text(1)
    assert heard.usage is not None
    assert heard.usage.completion_tokens == 20


async def test_logprobs_are_those_of_the_tokens(url: str) -> None:
    """As many entries as tokens, and together their text."""
    async with node(url, kind="llama-server") as protocol:
        heard = await heard_of(protocol, messages=COUNT, temperature=0, max_tokens=6, logprobs=True, top_logprobs=2)
    entries = heard.logprobs()
    assert len(entries) == 6
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == heard.text()
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)


async def test_a_schema_is_kept(url: str) -> None:
    """What the body asks for reaches the engine."""
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    async with node(url, kind="llama-server") as protocol:
        heard = await heard_of(protocol, messages=COUNT, temperature=0, response_format=form, max_tokens=40)
    assert json.loads(heard.text()) in ({"n": 1}, {"n": 2})


async def test_too_long_a_prompt_is_told_as_such(url: str) -> None:
    """In the server's own words, to the client."""
    async with node(url, kind="llama-server") as protocol:
        with pytest.raises(ContextLengthExceeded, match="512"):
            await heard_of(protocol, messages=[{"role": "user", "content": "word " * 600}])


async def test_cancelling_frees_the_slot(url: str) -> None:
    """The server stops writing as soon as nobody listens."""
    prefix = asyncio.Event()
    heard = Heard(lambda delta: prefix.set() if delta.text else None)
    body = {"messages": COUNT, "max_tokens": 400, "ignore_eos": True}
    async with node(url, kind="llama-server") as protocol:
        asking = asyncio.create_task(protocol.rpc_chat(ChatRequest(model="m", body=body), heard.emit))
        await prefix.wait()
        assert await busy_slots(url) == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        while await busy_slots(url):
            await asyncio.sleep(0.01)
    assert heard.finishes() == []
    assert len(heard.deltas) < 300


async def test_a_killed_server_is_a_lost_node() -> None:
    """In the middle of an answer, and from then on."""
    prefix = asyncio.Event()
    heard = Heard(lambda delta: prefix.set() if delta.text else None)
    body = {"messages": COUNT, "max_tokens": 400, "ignore_eos": True}
    with llama_server(slots=1) as running:
        async with node(running.url, kind="llama-server") as protocol:
            assert (await protocol.rpc_info()).cards
            asking = asyncio.create_task(protocol.rpc_chat(ChatRequest(model="m", body=body), heard.emit))
            await prefix.wait()
            running.process.kill()
            with pytest.raises(NodeLost):
                await asking
            with pytest.raises(NodeLost):
                await protocol.rpc_info()
    assert heard.text()
