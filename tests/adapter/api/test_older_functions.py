"""The older `functions` of OpenAI's API on the token lane: requests, histories, errors and answers."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from adapter.api.chat.older_functions import with_tools
from adapter.api.chat.validation import read_request
from adapter.errors import BadRequest
from tests.fakes import ASK, events_of, gateway, saying

USER = {"role": "user", "content": "Hi"}
FUNCTION = {"name": "turn_on", "description": "x", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"name": "turn_on", "arguments": "{}"}
# As Home Assistant's integrations send it.
HISTORY = [
    USER,
    {"role": "assistant", "content": None, "function_call": CALL},
    {"role": "function", "name": "turn_on", "content": "done"},
]
NEWER = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": CALL}]},
    {"role": "tool", "name": "turn_on", "tool_call_id": "c", "content": "done"},
]


def read(**fields: Any) -> Any:
    return read_request(msgspec.json.encode(ASK | fields), strict=True).request


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (None, None),
        ("none", "none"),
        ("auto", "auto"),
        ({"name": "turn_on"}, {"type": "function", "function": {"name": "turn_on"}}),
    ],
    ids=["default", "none", "auto", "named"],
)
def test_functions(older: Any, newer: Any) -> None:
    """They mean the same as tools of which one may be called, also with `strict`: OpenAI accepts them."""
    expected = read(tools=[TOOL], tool_choice=newer, parallel_tool_calls=False)
    assert read(functions=[FUNCTION], function_call=older) == expected
    assert read_request(msgspec.json.encode(ASK | {"functions": [FUNCTION]})).unknown == ()


def test_histories() -> None:
    """Calls and results get ids, with or without functions in the request."""
    for more in ({}, {"functions": [FUNCTION]}):
        _, call, result = read(messages=HISTORY, **more).messages
        assert call.tool_calls[0].id == result.tool_call_id
        assert (call.tool_calls[0].function.name, result.content) == ("turn_on", "done")
    twice = read(messages=[*HISTORY, *HISTORY[1:]]).messages
    assert len({message.tool_calls[0].id for message in twice[1::2]}) == 2


def test_the_newer_form_stays() -> None:
    """A request without anything older is not copied."""
    for body in (ASK, ASK | {"tools": [TOOL], "messages": NEWER}, ASK | {"functions": [], "function_call": "auto"}):
        assert with_tools(body) is body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [FUNCTION, {**FUNCTION, "name": "a b"}]}, "functions[1].name"),
        ({"functions": [{**FUNCTION, "parameters": 5}]}, "functions[0].parameters"),
        ({"functions": [5]}, "functions[0]"),
        ({"functions": [FUNCTION], "function_call": {"name": "other"}}, "function_call.name"),
        ({"messages": [USER, {"role": "assistant", "function_call": {"name": 5}}]}, "messages[1].function_call.name"),
        ({"messages": [USER, {"role": "function", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"messages": HISTORY, "temperature": 9}, "temperature"),
    ],
)
def test_errors_have_the_older_names(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == param
    assert "tools" not in caught.value.message


async def test_answers() -> None:
    """The prompt is that of the newer form, and the call is in the older one, streamed and not."""
    node = saying('<tool_call>{"name": "turn_on", "arguments": {}}</tool_call>')
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        path = "/v1/chat/completions"
        older, newer = {"functions": [FUNCTION], "messages": HISTORY}, {"tools": [TOOL], "messages": NEWER}
        whole = (await client.post(path, json=ASK | older)).json()["choices"][0]
        *chunks, done = events_of((await client.post(path, json=ASK | older | {"stream": True})).content)
        await client.post(path, json=ASK | newer)
    assert (whole["message"]["function_call"], whole["finish_reason"]) == (CALL, "function_call")
    assert "tool_calls" not in whole["message"]
    calls = [chunk["choices"][0]["delta"].get("function_call", {}) for chunk in chunks]
    assert [call["name"] for call in calls if "name" in call] == ["turn_on"]
    assert (chunks[-1]["choices"][0]["finish_reason"], done) == ("function_call", "[DONE]")
    assert node.requests[0].text == node.requests[-1].text
