"""Reading requests: what is taken, and how exactly a refusal names its reason."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.conversation import plain
from adapter.errors import BadRequest
from adapter.schema.parameters import MEANINGLESS, NEUTRAL, SERVED
from adapter.schema.reading import read_request
from adapter.schema.requests import ChatCompletionRequest

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
PART = {"type": "text", "text": "Hello"}
ARGUMENTS = "messages[0].tool_calls[0].function.arguments"


def calling(arguments: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "add", "arguments": arguments}}]}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **fields}).encode()


def read(**fields: Any) -> ChatCompletionRequest:
    return read_request(body(**fields))[0]


def refusal(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_request(data)
    return caught.value


def test_least_request() -> None:
    """Model and messages are enough."""
    request = read()
    assert (request.model, request.limit, request.stops, request.include_usage) == ("m", None, (), False)


@pytest.mark.parametrize("name", sorted(SERVED - {"model", "messages"} | NEUTRAL.keys() | MEANINGLESS))
def test_null_is_absent(name: str) -> None:
    """A null for an optional field means that it was not given."""
    assert read_request(body(**{name: None})) == read_request(body())


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": 1}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": [USER] * 4097}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [PART] * 1025}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "assistant", "content": [PART] * 1025}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL] * 1025}]}, "messages[0].tool_calls", "invalid_value"),
        ({"messages": [calling("x" * (2**20 + 1))]}, ARGUMENTS, "invalid_value"),
        ({f"p{n:03}": 1 for n in range(255)}, "p254", "invalid_value"),
        ({"messages": [3]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, "messages[1].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "invalid_type"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_parameter_combination"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": 1}, "stop", "invalid_type"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream_options": {}}, "stream_options", "invalid_parameter_combination"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"n": True}, "n", "unsupported_parameter"),
        ({"tools": [{}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "unsupported_parameter"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str, code: str) -> None:
    """A refusal names the exact place and the kind of mistake."""
    error = refusal(body(**fields))
    assert (error.param, error.code) == (param, code)
    assert param in error.message


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_parts_than_text(kind: str) -> None:
    """Images, sounds and files are refused by the name of the part."""
    error = refusal(body(messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": kind}]}]))
    assert error.param == "messages[0].content[1].type"
    assert kind in error.message
    assert "Only parts of type 'text'" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"model": [1',
        b'{"model": NaN}',
        b'{"model": "m"} x',
        b'{"model": "\xff"}',
        b'{"unknown": "\xff"}',
        b'{"model": "\\ud800"}',
        b'{"unknown": "\\udc00 \\ud800"}',
        b'{"unknown": ' + b"[" * 100_000,
    ],
)
def test_not_json(data: bytes) -> None:
    """What is no JSON, or no UTF-8, is one kind of mistake."""
    assert refusal(data).code == "invalid_json"


def test_lone_surrogate_is_explained() -> None:
    """The parser's own words for it would mislead."""
    assert "surrogate" in refusal(body(messages=[{"role": "user", "content": "\ud83d"}])).message
    assert read(messages=[{"role": "user", "content": "😀"}]).messages[0].content == "😀"


@pytest.mark.parametrize("data", [b"[]", b"null", b"3", b'"x"'])
def test_not_an_object(data: bytes) -> None:
    """The body must be an object."""
    error = refusal(data)
    assert (error.code, error.param) == ("invalid_type", None)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_number_beyond_floats(number: str) -> None:
    """A number that no float holds is refused where it matters."""
    for name in ("temperature", "presence_penalty"):
        data = body().decode().removesuffix("}") + f', "{name}": {number}}}'
        assert refusal(data.encode()).param == name


def test_neutral_values() -> None:
    """A parameter that is not served is taken where it asks for nothing."""
    for name, values in NEUTRAL.items():
        for value in values:
            assert read_request(body(**{name: value})) == read_request(body())
    assert read(presence_penalty=0.0) == read()


def test_unknown_parameters() -> None:
    """They are taken, and told; those without a meaning here are not worth telling."""
    assert read_request(body(zeta=1, alpha={}, user="me", metadata={"a": "b"}))[1] == ("alpha", "zeta")


def test_table_is_of_one_piece() -> None:
    """Every parameter has one place in the table."""
    assert not SERVED & NEUTRAL.keys()
    assert not (SERVED | NEUTRAL.keys()) & MEANINGLESS


def test_conversation() -> None:
    """All roles, and content as string or parts, become what templates expect."""
    request = read(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "1+1?", "name": "Ada"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "2", "tool_call_id": "call_1"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ]
    )
    assert plain(request.messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "1+1?", "name": "Ada"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**CALL, "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
        {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
    ]


def test_broken_arguments_of_an_old_call() -> None:
    """What a model once wrote need not be JSON: it is passed on as it is."""
    call = {**CALL, "function": {"name": "add", "arguments": "{a"}}
    said = plain(read(messages=[{"role": "assistant", "tool_calls": [call]}]).messages)
    assert said[0]["tool_calls"][0]["function"]["arguments"] == "{a"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(SERVED | NEUTRAL.keys())), _JSON))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Whatever the values are, the outcome is a request or a BadRequest."""
    data = msgspec.json.encode({"model": "m", "messages": [USER]} | fields)
    with suppress(BadRequest):
        assert read_request(data)[0].model


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """So is it with bytes."""
    with pytest.raises(BadRequest):
        read_request(data)
