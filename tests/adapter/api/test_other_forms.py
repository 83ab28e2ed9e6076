"""Requests of clients that were written for other servers, as their users reported them."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.chat.validation import read_request
from adapter.api.common.other_forms import to_openai
from adapter.config import Settings
from adapter.errors import BadRequest
from tests.adapter.api.test_pipeline import ENDPOINTS
from tests.fakes import ASK, gateway, saying

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "1"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
NAMED = {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA}}

# What is sent, what it means in OpenAI's form, and the parameter that `strict` refuses.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "LM Studio's examples: no maximum": ({"max_tokens": -1}, {}, "max_tokens"),
    "the same by the newer name": ({"max_completion_tokens": -1}, {}, "max_completion_tokens"),
    "llama.cpp, Together: a schema beside the type": (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"response_format": NAMED},
        "response_format.schema",
    ),
    "llama.cpp: a schema that is not nested": (
        {"response_format": {"type": "json_schema", "schema": SCHEMA}},
        {"response_format": NAMED},
        "response_format.json_schema",
    ),
    "a schema without a name": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"response_format": NAMED},
        "response_format.json_schema.name",
    ),
    "an empty list of parts, which OpenAI takes": (
        {"messages": [{"role": "system", "content": []}, USER]},
        {"messages": [{"role": "system", "content": ""}, USER]},
        "messages[0].content",
    ),
    "a call whose type is null": (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{**CALL, "type": None}]}, RESULT]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT]},
        "messages[1].tool_calls[0].type",
    ),
}


def body(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(ASK | fields)


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    """They mean the same as OpenAI's form, and nothing in them is reported as unknown; `strict` refuses them."""
    sent, meant, param = FORMS[name]
    found, expected = read_request(body(sent)), read_request(body(meant))
    assert found.request == expected.request
    assert found.unknown == ()
    with pytest.raises(BadRequest) as caught:
        read_request(body(sent), strict=True)
    assert caught.value.param == param


def test_all_at_once() -> None:
    """A request in several forms is put into OpenAI's at once, and what is wrong beside them is still refused."""
    sent = dict(part for own, _, _ in FORMS.values() for part in own.items())
    meant = dict(part for _, openai, _ in FORMS.values() for part in openai.items())
    assert read_request(body(sent)).request == read_request(body(meant)).request
    with pytest.raises(BadRequest) as caught:
        read_request(body(sent | {"temperature": 5}))
    assert caught.value.param == "temperature"


@pytest.mark.parametrize(
    "fields", [{"max_tokens": -2}, {"max_tokens": 0}, {"response_format": {"type": "json_object", "schema": 5}}]
)
def test_what_no_server_takes(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        read_request(body(fields))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "schema", "json_schema", "content", "tool_calls", "name"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["max_tokens", "response_format", "messages"]), _VALUES))
def test_any_body(given: dict[str, Any]) -> None:
    """Whatever is sent, its form is changed once, and the body that came is left as it is."""
    before = copy.deepcopy(given)
    converted = to_openai(given)
    assert given == before
    assert to_openai(converted) is converted


def test_stop_strings() -> None:
    """Continue sends a dozen of stop strings to servers other than OpenAI's, which takes four."""
    many = {"stop": [f"<{number}>" for number in range(16)]}
    assert len(read_request(body(many)).request.stops) == 16
    with pytest.raises(BadRequest) as caught:
        read_request(body(many), strict=True)
    assert caught.value.param == "stop"


def test_long_names_of_tools() -> None:
    """Clients of MCP make names longer than OpenAI takes."""
    for length, strict, accepted in ((64, True, True), (65, True, False), (256, False, True), (257, False, False)):
        long = body({"tools": [{"type": "function", "function": {"name": "x" * length}}]})
        if accepted:
            assert read_request(long, strict=strict).request.tools
            continue
        with pytest.raises(BadRequest) as caught:
            read_request(long, strict=strict)
        assert caught.value.param == "tools[0].function.name"


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}], ids=["missing", "null", "empty"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_without_a_model(path: str, model: dict[str, Any]) -> None:
    """A request that names no model gets the only one, or the default, as at vLLM; `strict` refuses it."""
    request = {name: value for name, value in ENDPOINTS[path].items() if name != "model"} | model
    other = saying("Other", model="other", peer="other")

    async def post(*nodes: Any, **settings: Any) -> httpx.Response:
        async with gateway(*nodes, settings=Settings(access_log=False, **settings)) as url:
            async with httpx.AsyncClient(base_url=url) as client:
                return await client.post(path, json=request)

    found = await post(saying("Hi"))
    assert (found.status_code, found.json().get("model")) == (200, "mock")
    found = await post(saying("Hi"), other, default_model="other")
    assert (found.status_code, found.json().get("model")) == (200, "other")
    for refused in (await post(saying("Hi"), other), await post(saying("Hi"), strict=True)):
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("model", [0, False, [], {}])
def test_a_model_of_another_type(model: Any) -> None:
    """A model that is not a string is refused; it does not count as missing."""
    with pytest.raises(BadRequest) as caught:
        read_request(body({"model": model}))
    assert (caught.value.param, caught.value.code) == ("model", "invalid_type")
