"""POST /v1/messages on both lanes: requests, answers, errors and lost nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from adapter.api.messages.blocks import SIGNATURE
from adapter.config import Settings
from subnet.errors import NodeLost
from subnet.protocols.base import Protocol
from subnet.protocols.mock import Pause
from subnet.tensors import unpack
from tests.checked_messages import decode_events
from tests.fakes import gateway, saying
from tests.provider import Pause as Silence
from tests.provider import Provider, Script, answer, chunk, cut_off, error_response, events
from tests.scripted_model import ScriptedModel, call, serving, turns
from tests.test_providers import TOOLS, WEATHER, gateway_to, node_of

PATH = "/v1/messages"
HELLO = [{"role": "user", "content": "Hello"}]
ASK: dict[str, Any] = {"model": "mock", "max_tokens": 100, "messages": HELLO}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
LOOK = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {"x": {}}}}
OBJECT = {"type": "object"}
CALLED = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"x": 1}}
# As Claude Code 2.1 sends it, shortened.
CLAUDE_CODE: dict[str, Any] = {
    "model": "mock",
    "max_tokens": 32000,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332; cch=12345;"},
        {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "system", "content": "It is Tuesday."},
    ],
    "tools": [{**LOOK, "eager_input_streaming": True}],
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "metadata": {"user_id": "user_1"},
}
HEADERS = {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2025,b-2026", "x-api-key": "any"}


@asynccontextmanager
async def client(*nodes: Protocol, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(*nodes, settings=Settings(access_log=False, **settings)) as url:
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            yield http


async def post(http: httpx.AsyncClient, path: str = PATH, **fields: Any) -> httpx.Response:
    return await http.post(path, json=ASK | fields, headers=HEADERS)


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["message"]


async def upstream_body(fields: dict[str, Any], script: Script | None = None, **card: Any) -> dict[str, Any]:
    """Return the body that a server of the chat lane gets for a request."""
    provider = Provider(script or answer(), **card)
    async with gateway_to(provider) as http:
        response = await http.post(PATH, json=ASK | fields)
        assert response.status_code == 200, response.text
    body: dict[str, Any] = provider.chat_requests[-1].body
    return body


async def test_a_message() -> None:
    """The answer has the text, the reason, and the tokens as Anthropic counts them; the request id is in a header."""
    async with client(saying("Hi there")) as http:
        response = await post(http)
        message = response.json()
        assert message["content"] == [{"type": "text", "text": "Hi there"}]
        assert (message["stop_reason"], message["stop_sequence"], message["model"]) == ("end_turn", None, "mock")
        assert message["id"].startswith("msg_")
        assert message["usage"]["output_tokens"] == len("Hi there")
        counted = await post(http, f"{PATH}/count_tokens", max_tokens=None)
        assert counted.json() == {"input_tokens": message["usage"]["input_tokens"]}
        assert response.headers["request-id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("lane", ["token", "chat"])
async def test_a_stream_equals_the_whole_message(lane: str) -> None:
    """On both lanes a stream says what the message says, and is named by no [DONE]."""
    provider = Provider(answer("Hi there"))
    async with provider, client(node_of(provider) if lane == "chat" else saying("Hi there")) as http:
        whole = (await post(http)).json()
        body = (await post(http, stream=True)).text
    found = decode_events(body)
    texts = [one["delta"]["text"] for one in found if one["type"] == "content_block_delta"]
    assert "".join(texts) == whole["content"][0]["text"] == "Hi there"
    assert found[-2]["usage"] == whole["usage"]
    assert (found[-1]["type"], "DONE" in body) == ("message_stop", False)


async def test_stop_sequence() -> None:
    """The matching stop sequence is named, and is not part of the text."""
    async with client(saying("one END two")) as http:
        message = (await post(http, stop_sequences=["never", "END"])).json()
    assert (message["content"][0]["text"], message["stop_sequence"]) == ("one ", "END")
    assert message["stop_reason"] == "stop_sequence"


async def test_a_full_context_is_named() -> None:
    """An answer that the context ends, not `max_tokens`, says so. Without `max_tokens` the default applies."""
    async with client(saying("x" * 200, context_length=64), default_max_tokens=3) as http:
        assert (await post(http, max_tokens=10)).json()["stop_reason"] == "max_tokens"
        full = await post(http, max_tokens=100)
        assert full.json()["stop_reason"] == "model_context_window_exceeded"
        assert (await post(http, max_tokens=None)).json()["usage"]["output_tokens"] == 3


CONVERSATIONS: dict[str, tuple[list[Any], list[Any]]] = {
    "texts": (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
    )
    * 2,
    "blocks": ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],) * 2,
    "a call and its result": (
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "text", "text": "b"}, CALLED]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "c"}]},
        ],
        [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": "b",
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "c"},
        ],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_prompt_of_a_chat_completion(name: str) -> None:
    """The same conversation with the same tools is the same prompt in both dialects, and is counted as long as it."""
    theirs, ours = CONVERSATIONS[name]
    function = {"name": "look", "description": "Looks.", "parameters": LOOK["input_schema"]}
    model = ScriptedModel(turns("Hi", "Hi"))
    async with serving(model) as url, httpx.AsyncClient(base_url=url) as http:
        fields = {"model": "mock", "max_tokens": 10}
        system = {"role": "system", "content": "s"}
        first = await http.post("/messages", json={**fields, "system": "s", "messages": theirs, "tools": [LOOK]})
        tools = [{"type": "function", "function": function}]
        other = await http.post("/chat/completions", json={**fields, "messages": [system, *ours], "tools": tools})
        assert model.prompts[0] == model.prompts[1]
        assert first.json()["usage"]["input_tokens"] == other.json()["usage"]["prompt_tokens"]
        counted = await http.post(
            "/messages/count_tokens", json={"model": "mock", "system": "s", "messages": theirs, "tools": [LOOK]}
        )
        assert counted.json()["input_tokens"] == first.json()["usage"]["input_tokens"]


async def test_calls_on_the_token_lane() -> None:
    """A call has an id of Anthropic's kind, and its input arrives as JSON text, also if a node is lost in between."""
    for failing in (False, True):
        model = ScriptedModel(turns(call("look", x=1)), failing=failing)
        async with serving(model) as url, httpx.AsyncClient(base_url=url) as http:
            fields = {**ASK, "tools": [LOOK], "tool_choice": {"type": "any"}}
            message = (await http.post("/messages", json=fields)).json()
            (block,) = message["content"]
            assert (block["name"], block["input"], message["stop_reason"]) == ("look", {"x": 1}, "tool_use")
            assert block["id"].startswith("toolu_")
            found = decode_events((await http.post("/messages", json={**fields, "stream": True})).text)
            deltas = [one["delta"]["partial_json"] for one in found if one["type"] == "content_block_delta"]
            assert "".join(deltas).replace(" ", "") == '{"x":1}'
            assert model.lost == (2 if failing else 0)


async def test_a_stream_survives_the_loss_of_its_node() -> None:
    """The events are those of an undisturbed stream, on both lanes, but for the id; a comment names the nodes."""

    async def events_from(*nodes: Protocol) -> tuple[str, list[Any]]:
        async with client(*nodes) as http:
            body = (await post(http, stream=True, temperature=0)).text
        found = decode_events(body)
        assert found[0]["message"].pop("id")
        return body, found

    _, undisturbed = await events_from(saying("One two three."))
    body, found = await events_from(saying("One tw", NodeLost("gone"), peer="a"), saying("One two three.", peer="b"))
    assert found == undisturbed
    assert ": nodes a, b" in body
    async with Provider(answer()) as good:
        _, undisturbed = await events_from(node_of(good))
    async with Provider(cut_off(3), error_response(500)) as bad, Provider(answer()) as good:
        _, found = await events_from(node_of(bad), node_of(good))
    texts = [
        "".join(one["delta"]["text"] for one in each if one["type"] == "content_block_delta")
        for each in (found, undisturbed)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("lane", ["chat", "token"])
async def test_a_fallback_continues_if_allowed(lane: str) -> None:
    """With `fallback_continues`, another model that says something else continues the text in the same block."""
    bad = Provider(cut_off(3), error_response(500))
    other = Provider(answer("One two four."), answer(" and the rest."))
    tokens = saying(" and the rest.", model="other", peer="tokens")
    async with bad, other:
        node: Protocol = tokens if lane == "token" else node_of(other, "other", "vllm")
        settings: dict[str, Any] = {"fallbacks": {"mock": ("other",)}, "fallback_continues": True}
        async with client(node_of(bad), node, **settings) as http:
            body = (await post(http, stream=True, max_tokens=50)).text
    found = decode_events(body)
    texts = [one["delta"]["text"] for one in found if one["type"] == "content_block_delta"]
    assert "".join(texts) == "One two three and the rest."
    assert "; continued by other\n" in body
    assert [one["type"] for one in found].count("content_block_start") == 1
    if lane == "chat":
        sent = other.chat_requests[1].body
        assert sent["messages"][-1] == {"role": "assistant", "content": "One two three"}
        assert (sent["max_tokens"], sent["continue_final_message"]) == (47, True)


async def test_claude_code_on_the_token_lane() -> None:
    """The request of Claude Code is answered: with its reminder in the user's turn, and without the changing header."""
    model = ScriptedModel(turns("Hi"))
    async with serving(model) as url, httpx.AsyncClient(base_url=url.removesuffix("/v1")) as http:
        assert (await http.head("/")).status_code == 200
        response = await http.post(f"{PATH}?beta=true", json=CLAUDE_CODE, headers=HEADERS)
    kinds = [one["type"] for one in decode_events(response.text)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "x-ignored-params" not in response.headers
    (prompt,) = model.prompts
    assert "billing" not in prompt
    assert "You are an agent.\nBe brief." in prompt
    assert "<|im_start|>user\nHi\n<system-reminder>\nIt is Tuesday.\n</system-reminder><|im_end|>" in prompt


async def test_claude_code_on_the_chat_lane() -> None:
    """A server that accepts only messages gets those of a chat completion, without what only Anthropic has."""
    body = await upstream_body(CLAUDE_CODE)
    reminder = "<system-reminder>\nIt is Tuesday.\n</system-reminder>"
    assert body["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": text} for text in ("You are an agent.", "Be brief.")]},
        {"role": "user", "content": [{"type": "text", "text": text} for text in ("Hi", reminder)]},
    ]
    function = {"name": "look", "description": "Looks.", "parameters": LOOK["input_schema"]}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body.keys() == {"messages", "tools", "max_tokens", "model", "stream", "stream_options"}


async def test_a_conversation_on_the_chat_lane() -> None:
    """Results of tools follow their calls, with their images in the user's message; a failure is said to be one."""
    result = [{"type": "text", "text": "seen"}, IMAGE]
    body = await upstream_body(
        {
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "sig"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "text", "text": "b"},
                        CALLED,
                        {**CALLED, "id": "toolu_2"},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "c"},
                        {"type": "tool_result", "tool_use_id": "toolu_1", "content": result},
                        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such file", "is_error": True},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "document", "source": {"type": "text", "data": "d"}, "title": "T", "context": "C"},
                        {
                            "type": "search_result",
                            "title": "S",
                            "source": "u",
                            "content": [{"type": "text", "text": "e"}],
                        },
                    ],
                },
            ]
        }
    )
    function = {"name": "look", "arguments": '{"x":1}'}
    url = {"url": "data:image/png;base64,aGk="}
    assert body["messages"] == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "b",
            "reasoning_content": "hm",
            "tool_calls": [{"id": f"toolu_{index}", "type": "function", "function": function} for index in (1, 2)],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "seen"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no such file"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": url},
                {"type": "text", "text": "c"},
                {"type": "text", "text": "T\nC\nd"},
                {"type": "text", "text": "S\nu\ne"},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 5}, {"temperature": 0.5, "top_p": 0.9, "top_k": 5}),
        ({"tools": [LOOK], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tools": [LOOK], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tools": [LOOK], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"parallel_tool_calls": False},
        ),
        (
            {"tools": [LOOK], "tool_choice": {"type": "tool", "name": "look"}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 20000}}, {"reasoning_effort": "high"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"type": "object"}},
                }
            },
        ),
    ],
)
async def test_parameters_on_the_chat_lane(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body = await upstream_body(fields)
    assert {name: body.get(name) for name in expected} == expected


async def test_calls_and_reasoning_of_a_server() -> None:
    """Reasoning and calls of a server of the chat lane are blocks, and what it names as its stop is the sequence."""
    whole = {**WEATHER, "index": 0, "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    script = events(
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Let me see."}),
        chunk({"tool_calls": [whole]}),
        chunk(finish="tool_calls"),
    )
    tools = [{"name": one["function"]["name"], "input_schema": {"type": "object"}} for one in TOOLS]  # type: ignore[index]
    async with gateway_to(Provider(script)) as http:
        message = (await post(http, tools=tools)).json()
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert (message["content"][2]["input"], message["stop_reason"]) == ({"city": "Bonn"}, "tool_use")
    finish = chunk(finish="stop")
    finish["choices"][0]["stop_reason"] = "END"
    async with gateway_to(Provider(events(chunk({"content": "a"}), finish))) as http:
        message = (await post(http, stop_sequences=["END"])).json()
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


THINKING = """\
{%- for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}assistant:{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}"""


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"output_config": {"effort": "high"}, "thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, False),
        ({}, False),
    ],
)
async def test_thinking_on_the_token_lane(fields: dict[str, Any], thinks: bool) -> None:
    """Reasoning is turned on and off in the chat template, and is a block of its own with a signature."""
    node = saying("Hm.</think>Hi" if thinks else "Hi", chat_template=THINKING)
    async with client(node) as http:
        message = (await post(http, **fields)).json()
        found = decode_events((await post(http, **fields, stream=True)).text)
    prompt = bytes(unpack(node.requests[0].prompt).tolist()).decode()
    assert prompt.endswith("assistant:<think>" if thinks else "assistant:<think></think>")
    thinking = [{"type": "thinking", "thinking": "Hm.", "signature": SIGNATURE}] if thinks else []
    assert message["content"] == [*thinking, {"type": "text", "text": "Hi"}]
    kinds = [one["content_block"]["type"] for one in found if one["type"] == "content_block_start"]
    assert kinds == [block["type"] for block in message["content"]]
    assert ("output_tokens_details" in message["usage"]) == thinks


async def test_a_last_message_of_the_model_is_continued() -> None:
    """The answer is what follows the last message, on the token lane and where a server can continue messages."""
    prefill: dict[str, Any] = {
        "messages": [*HELLO, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    }
    node = saying(" four.")
    async with client(node) as http:
        message = (await post(http, **prefill)).json()
        assert message["content"] == [{"type": "text", "text": " four."}]
    provider = Provider(answer(" four."))
    async with provider, client(node_of(provider, kind="vllm")) as http:
        message = (await post(http, **prefill)).json()
        assert message["content"] == [{"type": "text", "text": " four."}]
    assert provider.chat_requests[0].body["messages"][-1] == {"role": "assistant", "content": "It is"}
    assert provider.chat_requests[0].body["continue_final_message"] is True


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_cannot_continue_messages(stream: bool) -> None:
    """A last message of the model is refused by its place if no server of the model can continue it."""
    async with gateway_to(Provider()) as http:
        messages = [*HELLO, {"role": "assistant", "content": "It is"}]
        found = error_of(await post(http, messages=messages, stream=stream))
    why = "no server of this model can continue a message of the assistant"
    assert found == (400, "invalid_request_error", f"Invalid value for 'messages.1': {why}.")


@pytest.mark.parametrize("depth", [900, 940, 955, 965, 975, 985, 2000])
async def test_deep_inputs(depth: int) -> None:
    """An input of a call that is nested very deeply is passed on or refused, on both lanes."""
    call = json.dumps({**CALLED, "input": None}).replace("null", '{"a":' * depth + "1" + "}" * depth)
    result = json.dumps({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]})
    body = f'{{"model": "mock", "messages": [{{"role": "assistant", "content": [{call}]}}, {result}]}}'
    provider = Provider()
    async with provider:
        for node in (saying("Hi"), node_of(provider)):
            async with client(node) as http:
                response = await http.post(PATH, content=body)
                assert response.status_code in (200, 400), response.text
                assert response.status_code == 200 or "nested" in response.text or "recursion" in response.text


async def test_what_has_no_effect_is_named() -> None:
    """Tools and blocks of Anthropic's, and unknown members, are left out and named; markers of caches are not."""
    fields: dict[str, Any] = {
        "tools": [LOOK, {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}, "weight": 2}],
            },
            {
                "role": "assistant",
                "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}],
            },
            *HELLO,
        ],
        "mcp_servers": [{"type": "url"}],
        "cache_control": {"type": "ephemeral"},
        "service_tier": "auto",
    }
    expected = "mcp_servers, messages[0].content[0].weight, messages[1].content[0], tools[1]"
    model = ScriptedModel(turns("Hi"))
    async with serving(model) as url, httpx.AsyncClient(base_url=url.removesuffix("/v1")) as http:
        assert (await post(http, **fields)).headers["x-ignored-params"] == expected
    assert "web_search" not in model.prompts[0]
    async with gateway_to(Provider()) as http:
        assert (await post(http, **fields)).headers["x-ignored-params"] == expected
    async with client(saying("Hi"), strict=True) as http:
        assert error_of(await post(http, **fields))[2] == "Unknown parameter: 'mcp_servers'."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "Invalid value for 'messages': expected a non-empty array."),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]},
            "Invalid value for 'messages.1.content.1.type': this model does not support content parts of type 'image'.",
        ),
        (
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "content": [CALLED]},
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "toolu_1",
                                "content": [{"type": "text", "text": "a"}, IMAGE],
                            }
                        ],
                    },
                ]
            },
            (
                "Invalid value for 'messages.2.content.0.content.1.type': this model does not support content"
                " parts of type 'image'."
            ),
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "http://x"}}]}
                ]
            },
            (
                "Invalid value for 'messages.0.content.0.source.type': documents are not fetched. Supported"
                " values are: 'base64', 'text' and 'content'."
            ),
        ),
        (
            {"messages": [{"role": "bot", "content": "a"}]},
            (
                "Invalid value for 'messages.0.role': 'bot' is not supported. Supported values are: 'user',"
                " 'assistant', and 'system'."
            ),
        ),
        ({"tools": [{"name": "a"}]}, "Missing required parameter: 'tools.0.input_schema'."),
        (
            {"tool_choice": {"type": "any"}},
            "The 'tool_choice' parameter is only allowed when 'tools' are specified.",
        ),
        (
            {"tools": [LOOK], "tool_choice": {"type": "tool", "name": "other"}},
            "Invalid value for 'tool_choice.name': 'other' is not in 'tools', or a tool that only Anthropic has.",
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": [CALLED]}]},
            (
                "Invalid value for 'messages.1.content.0.id': expected a 'tool_result' block with this"
                " 'tool_use_id' in a message after it."
            ),
        ),
        ({"temperature": 3}, "Invalid value for 'temperature': expected a number between 0 and 2, but got 3."),
        ({"max_tokens": 0}, "Invalid value for 'max_tokens': expected an integer of at least 1, but got 0."),
        ({"service_tier": 1}, "Invalid type for 'service_tier': expected a string, but got an integer instead."),
    ],
)
async def test_invalid_requests(fields: dict[str, Any], message: str) -> None:
    """An invalid request is refused in Anthropic's envelope, whose message names the place in the client's request."""
    async with client(saying("Hi")) as http:
        assert error_of(await post(http, **fields)) == (400, "invalid_request_error", message)


async def test_an_error_of_a_server_names_the_place_of_the_client() -> None:
    """What a server of the chat lane says about a message of the translated request is said about the client's."""
    refusal = error_response(400, "'messages[2].content' is too long", param="messages[2].content")
    async with gateway_to(Provider(refusal)) as http:
        messages = [*HELLO, {"role": "assistant", "content": "a"}, *HELLO]
        found = error_of(await post(http, system="s", messages=messages))
    assert found == (400, "invalid_request_error", "'messages.1.content' is too long")


async def test_errors_before_and_beside_the_endpoint() -> None:
    """Errors of the gate, of paths, methods and bodies are in the envelope of the dialect that the path is in."""
    async with client(saying("Hi"), api_keys=("secret-key",), max_body=1024) as http:
        assert error_of(await http.post(PATH, json=ASK))[:2] == (401, "authentication_error")
        for headers in ({"x-api-key": "secret-key"}, {"authorization": "Bearer secret-key"}):
            assert (await http.post(PATH, json=ASK, headers=headers)).status_code == 200
        http.headers["x-api-key"] = "secret-key"
        assert error_of(await http.post(PATH, content=b"{"))[:2] == (400, "invalid_request_error")
        assert error_of(await http.post(PATH, content=b" " * 2048))[:2] == (413, "request_too_large")
        assert error_of(await http.post(f"{PATH}/batches", json={}))[:2] == (404, "not_found_error")
        assert error_of(await http.get(PATH))[:2] == (405, "invalid_request_error")
        assert error_of(await http.post(PATH, json=ASK | {"model": "nope"}))[:2] == (404, "not_found_error")
        theirs = await http.post("/v1/chat/completions", json={}, headers=HEADERS | {"x-api-key": "secret-key"})
        assert theirs.json().keys() == {"error"}
    async with client(saying("Hi")) as http:
        refused = await http.post(PATH, json=ASK, headers={"host": "example.com"})
        assert error_of(refused)[:2] == (403, "permission_error")
    async with client(saying("", NodeLost("gone"))) as http:
        response = await post(http)
        assert error_of(response)[:2] == (503, "overloaded_error")
        assert response.headers["retry-after"]


async def test_an_error_in_the_middle_of_a_stream() -> None:
    """It is the last event, in the envelope."""
    async with client(saying("One tw", NodeLost("gone"))) as http:
        found = decode_events((await post(http, stream=True)).text)
    assert (found[0]["type"], found[-1]["type"]) == ("message_start", "error")
    assert found[-1]["error"]["type"] == "overloaded_error"


async def test_pings_during_a_long_prefill() -> None:
    """Before the first token, pings keep the connection alive."""
    until = asyncio.Event()
    provider = Provider(Script([*answer("Hi").steps], before=[Silence(until)]))
    async with gateway_to(provider, sse_keep_alive=0.05) as http:
        async with http.stream("POST", PATH, json=ASK | {"stream": True}) as response:
            lines = response.aiter_lines()
            assert (await anext(lines), await anext(lines)) == ("event: ping", 'data: {"type":"ping"}')
            until.set()
            rest = [line async for line in lines]
    assert "event: message_start" in rest


async def test_models() -> None:
    """The list of models is Anthropic's for clients that send its version, and OpenAI's for others."""
    async with client(saying("Hi"), aliases={"claude-haiku": "mock"}) as http:
        page = (await http.get("/v1/models", headers=HEADERS)).json()
        assert ([one["id"] for one in page["data"]], page["has_more"]) == (["mock", "claude-haiku"], False)
        assert (await http.get("/v1/models/claude-haiku", headers=HEADERS)).json()["type"] == "model"
        missing = await http.get("/v1/models/none", headers=HEADERS)
        assert error_of(missing)[:2] == (404, "not_found_error")
        assert (await http.get("/v1/models")).json()["object"] == "list"


async def test_tokens_of_a_model_that_accepts_only_messages() -> None:
    """The tokens of such a model are not known: counting them is refused, not guessed."""
    async with gateway_to(Provider()) as http:
        assert error_of(await post(http, f"{PATH}/count_tokens"))[:2] == (400, "invalid_request_error")


async def test_a_client_that_leaves() -> None:
    """The work on the node is cancelled when the client closes a stream."""
    node = saying("Hi", Pause())
    async with client(node) as http:
        async with http.stream("POST", PATH, json=ASK | {"stream": True}) as response:
            await anext(response.aiter_lines())
        while node.cancelled != 1:
            await asyncio.sleep(0.01)
