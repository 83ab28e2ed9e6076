"""The list of models: what clients read about context length, features and age, and only what is known."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Capabilities
from subnet.protocols.mock_chat import MockChatProtocol
from subnet.protocols.openai.openai_protocol import OpenAIProtocol
from tests.fakes import gateway, saying
from tests.provider import Provider

LENGTHS = ("max_model_len", "context_length", "context_window", "max_context_length")
ALL = Capabilities(
    top_logprobs=5, top_k=True, min_p=True, penalties=True, logit_bias=True, embeddings=True, grammars=("json_schema",)
)
QWEN = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}{% endfor %}"
)


async def models(*nodes: Any, settings: Settings | None = None) -> dict[str, dict[str, Any]]:
    async with gateway(*nodes, settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        # Only then is the tokenizer loaded for sure, from which formats are known.
        await client.post("/tokenize", json={"model": "mock", "prompt": "Hi"})
        first = (await client.get("/v1/models")).json()["data"]
        again = (await client.get("/v1/models")).json()["data"]
        for model in first:
            assert (await client.get(f"/v1/models/{model['id']}")).json() == model
    assert first == again
    return {model["id"]: model for model in first}


async def test_a_model_of_the_token_lane() -> None:
    """A model on the token lane has its context length under every name, and what its template and engine can do."""
    node = saying("Hi", context_length=4321, chat_template=QWEN, capabilities=ALL)
    found = (await models(node))["mock"]
    assert [found[name] for name in LENGTHS] == [4321] * 4
    assert found["meta"] == {"n_ctx": 4321}
    assert found["architecture"] == {"input_modalities": ["text"], "output_modalities": ["text"]}
    assert found["capabilities"] == {
        "completion_chat": True,
        "function_calling": True,
        "vision": False,
        "reasoning": False,
        "embeddings": True,
    }
    supported = set(found["supported_parameters"])
    assert {"temperature", "max_tokens", "tools", "tool_choice", "response_format", "top_k", "logprobs"} <= supported
    assert not {"typical_p", "min_tokens"} & supported


async def test_an_engine_without_features() -> None:
    """Features that no engine of the model has are not listed."""
    found = (await models(saying("Hi", capabilities=Capabilities())))["mock"]
    assert found["capabilities"]["embeddings"] is False
    assert not {"response_format", "top_k", "logprobs", "logit_bias"} & set(found["supported_parameters"])


async def test_what_a_server_does_not_say_is_missing() -> None:
    """On the chat lane, what the server does not say is left out, never guessed."""
    found = (await models(MockChatProtocol(["Hi"])))["mock"]
    assert found["capabilities"] == {"completion_chat": True}
    assert not found.keys() & {*LENGTHS, "meta", "architecture", "supported_parameters"}


# Entries as the servers' documentation has them, shortened.
OPENROUTER = {
    "id": "m",
    "created": 1741818122,
    "context_length": 131072,
    "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    "supported_parameters": ["max_tokens", "temperature", "tools", "tool_choice", "reasoning", 5, "x" * 100],
}
MISTRAL = {
    "id": "m",
    "created": 1741818122,
    "max_context_length": 32768,
    "capabilities": {"completion_chat": True, "function_calling": True, "vision": False},
}
OTHERS = {
    "id": "m",
    "created": 1741818122,
    "max_model_len": 8192,
    "capabilities": ["completion", "vision"],
}


@pytest.mark.parametrize(
    ("entry", "length", "capabilities"),
    [
        (OPENROUTER, 131072, {"function_calling": True, "vision": True, "reasoning": True}),
        (MISTRAL, 32768, {"function_calling": True}),
        (OTHERS, 8192, {"function_calling": False, "vision": True, "reasoning": False}),
        ({"id": "m", "created": 1741818122, "capabilities": {"tools": "yes"}, "supported_parameters": "all"}, None, {}),
        ({"id": "m", "created": 1741818122, "capabilities": None, "supported_parameters": {}}, None, {}),
    ],
)
async def test_what_a_server_says(entry: dict[str, Any], length: int | None, capabilities: dict[str, bool]) -> None:
    """On the chat lane, the list has what the server's own list says, in whichever format."""
    async with Provider(models=[entry]) as provider:
        found = (await models(OpenAIProtocol(NodeSpec(url=provider.url))))["m"]
    assert [found.get(name) for name in LENGTHS] == [length] * 4
    assert found["capabilities"] == {"completion_chat": True, **capabilities}
    assert found["created"] == 1741818122
    expected = ["max_tokens", "temperature", "tools", "tool_choice", "reasoning"]
    assert found.get("supported_parameters") == (expected if entry is OPENROUTER else None)


@pytest.mark.parametrize("created", [0, None, "now", -5, 1.5, True])
async def test_servers_without_a_time(created: Any) -> None:
    """A server that reports no time, or invents one for each request, has models as old as the gateway, unchanged in
    each list.
    """
    before = int(time.time())
    invented = int(time.time()) + 100 if created == "now" else created
    async with Provider(models=[{"id": "m", "created": invented}]) as provider:
        found = (await models(OpenAIProtocol(NodeSpec(url=provider.url))))["m"]
    assert before <= found["created"] <= time.time()


async def test_an_alias_is_described_like_its_model() -> None:
    """An alias has the description of its model, under its own name."""
    found = await models(saying("Hi"), settings=Settings(aliases={"alias": "mock"}, access_log=False))
    assert found["alias"] == {**found["mock"], "id": "alias"}
