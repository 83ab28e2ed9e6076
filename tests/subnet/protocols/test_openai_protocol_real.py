"""A real llama-server with a small model, as an OpenAI-compatible server on the chat lane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from subnet.chat import ChatRequest
from subnet.errors import ContextLengthExceeded, NodeLost
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from tests.chat_node import Recorder, chat, node
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
async def test_response_is_streamed(url: str, kind: str | None) -> None:
    """A real server's response is streamed with its usage, whichever type is configured."""
    async with node(url, kind=kind) as protocol:
        (card,) = (await protocol.rpc_info()).cards
        assert (card.context_length, card.lane, card.modalities) == (512, "chat", ())
        result = await chat(protocol, messages=COUNT, temperature=0, max_completion_tokens=12)
    assert result.finishes() == ["length"]
    assert sum(bool(delta.text) for delta in result.deltas) > 6
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (38, 12)


async def test_stop_string(url: str) -> None:
    """A real server ends a response at a stop string."""
    async with node(url, kind="llama-server") as protocol:
        result = await chat(protocol, messages=COUNT, temperature=0, stop=["2"], max_tokens=50)
    assert result.finishes() == ["stop"]
    assert result.text()
    assert "2" not in result.text()


async def test_prefix_is_continued(url: str) -> None:
    """A real server continues a prefix with the text of an uninterrupted response, and does not repeat it."""
    async with node(url, kind="llama-server") as protocol:
        prefix = "One, two, three,"
        longer = await chat(protocol, messages=COUNT, temperature=0, max_tokens=16, prefix=prefix)
        first = await chat(protocol, messages=COUNT, temperature=0, max_tokens=4, prefix=prefix)
        rest = await chat(protocol, messages=COUNT, temperature=0, max_tokens=12, prefix=prefix + first.text())
    assert first.text().startswith(" four")
    assert longer.text() == first.text() + rest.text()


async def test_several_choices(url: str) -> None:
    """Several choices have different seeds and a common usage."""
    async with node(url, kind="llama-server") as protocol:
        result = await chat(protocol, messages=COUNT, choices=(0, 1), seed=5, max_tokens=10)
    assert result.finishes(0) == result.finishes(1) == ["length"]
    assert result.text(0) != result.text(1)
    assert result.usage is not None
    assert result.usage.completion_tokens == 20


async def test_logprobs(url: str) -> None:
    """A response has one logprob entry per token, and their bytes are its text."""
    async with node(url, kind="llama-server") as protocol:
        result = await chat(protocol, messages=COUNT, temperature=0, max_tokens=6, logprobs=True, top_logprobs=2)
    entries = result.logprobs()
    assert len(entries) == 6
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == result.text()
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)


async def test_json_schema(url: str) -> None:
    """A real server enforces the JSON schema in the request body."""
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    async with node(url, kind="llama-server") as protocol:
        result = await chat(protocol, messages=COUNT, temperature=0, response_format=form, max_tokens=40)
    assert json.loads(result.text()) in ({"n": 1}, {"n": 2})


async def test_context_length_exceeded(url: str) -> None:
    """A prompt above the context length raises ContextLengthExceeded with the server's message."""
    async with node(url, kind="llama-server") as protocol:
        with pytest.raises(ContextLengthExceeded, match="512"):
            await chat(protocol, messages=[{"role": "user", "content": "word " * 600}])


async def test_cancelling_frees_the_slot(url: str) -> None:
    """Cancelling a request frees the slot on the server."""
    prefix = asyncio.Event()
    result = Recorder(lambda delta: prefix.set() if delta.text else None)
    body = {"messages": COUNT, "max_tokens": 400, "ignore_eos": True}
    async with node(url, kind="llama-server") as protocol:
        asking = asyncio.create_task(protocol.rpc_chat(ChatRequest(model="m", body=body), result.emit))
        await prefix.wait()
        assert await busy_slots(url) == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        while await busy_slots(url):
            await asyncio.sleep(0.01)
    assert result.finishes() == []
    assert len(result.deltas) < 300


async def test_killed_server_is_a_lost_node() -> None:
    """A server that is killed during a response raises NodeLost, and so does the next health check."""
    prefix = asyncio.Event()
    result = Recorder(lambda delta: prefix.set() if delta.text else None)
    body = {"messages": COUNT, "max_tokens": 400, "ignore_eos": True}
    with llama_server(slots=1) as running:
        async with node(running.url, kind="llama-server") as protocol:
            assert (await protocol.rpc_info()).cards
            asking = asyncio.create_task(protocol.rpc_chat(ChatRequest(model="m", body=body), result.emit))
            await prefix.wait()
            running.process.kill()
            with pytest.raises(NodeLost):
                await asking
            with pytest.raises(NodeLost):
                await protocol.rpc_info()
    assert result.text()
