"""Forced calls and output formats on engines that enforce only JSON schemas, such as vLLM and SGLang."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest

from adapter.grammar.json_schema_only import rebase_references
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol
from subnet.wire.messages import Generate
from tests.fakes import ASK, events_of, gateway

CHAT = "/v1/chat/completions"
PLAIN = Capabilities(resume="exact", grammars=("json_schema", "regex"))
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
LOOK = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/point"}, "all": {"$ref": "#"}},
    "required": ["at"],
    "$defs": {"point": POINT},
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "look", "parameters": LOOK}},
    {"type": "function", "function": {"name": "wait"}},
]
THINKING = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call>{% endif %}<think>\n"


def node(text: str, **options: Any) -> MockProtocol:
    return MockProtocol([*text.encode()], capabilities=PLAIN, **options)


async def ask(answering: MockProtocol, **more: Any) -> tuple[Any, Generate]:
    async with gateway(answering) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post(CHAT, json=ASK | more)
    return response, answering.requests[-1]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
async def test_forced_call(choice: Any) -> None:
    """A forced call is sent to the engine as a JSON schema whose references resolve, and the output is parsed as a
    call.
    """
    said = '{"name": "look", "arguments": {"at": {"x": 1}}}'
    response, asked = await ask(node(said), tools=TOOLS, tool_choice=choice)
    (made,) = response.json()["choices"]
    (call,) = made["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("look", {"at": {"x": 1}})
    assert (made["message"]["content"], made["finish_reason"]) == (None, "tool_calls")
    grammar = asked.sampling.grammar
    assert grammar is not None
    assert grammar.kind == "json_schema"
    schema = json.loads(grammar.text)
    jsonschema.validate(json.loads(said), schema)
    for wrong in ({"at": {"x": "1"}}, {"at": {"x": 1}, "all": {}}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"name": "look", "arguments": wrong}, schema)
    waits = {"name": "wait", "arguments": {}}
    if choice == "required":
        jsonschema.validate(waits, schema)
    else:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(waits, schema)


async def test_streamed_forced_call() -> None:
    """A streamed call starts with its name, followed by its arguments, without content."""
    response, _ = await ask(node('{"name": "wait", "arguments": {}}'), tools=TOOLS, tool_choice="required", stream=True)
    deltas = [chunk["choices"][0]["delta"] for chunk in events_of(response.content)[:-1] if chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "wait"
    assert "".join(call["function"].get("arguments", "") for call in calls) == "{}"
    assert not any(delta.get("content") for delta in deltas)


async def test_output_format_of_a_reasoning_model() -> None:
    """With an output format, the whole output is content, even of a model that reasons."""
    form = {"type": "json_schema", "json_schema": {"name": "point", "schema": POINT}}
    response, asked = await ask(node('{"x": 1}', chat_template=THINKING), response_format=form)
    message = response.json()["choices"][0]["message"]
    assert (message["content"], message.get("reasoning_content")) == ('{"x": 1}', None)
    assert asked.sampling.grammar is not None
    assert json.loads(asked.sampling.grammar.text) == POINT | {"additionalProperties": False}


def test_references_in_a_moved_schema() -> None:
    """Moving a schema rewrites its local references, but not properties named $ref or references to URLs."""
    schema = {"properties": {"$ref": {"$ref": "#/$defs/a"}}, "anyOf": [{"$ref": "#"}, {"$ref": "http://x/y"}]}
    assert rebase_references(schema, "#/at") == {
        "properties": {"$ref": {"$ref": "#/at/$defs/a"}},
        "anyOf": [{"$ref": "#/at"}, {"$ref": "http://x/y"}],
    }
