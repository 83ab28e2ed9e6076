"""Reading requests to /v1/chat/completions: what is accepted, and how an error names the place of a mistake."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.chat.validation import read_request
from adapter.api.common.formats import JsonSchema, JsonSchemaFormat, StructuredOutputs
from adapter.api.common.parameter_table import TABLE
from adapter.api.conversation.message_types import AssistantMessage, Message
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.tools import NamedTool
from adapter.api.conversation.translate import media, plain
from adapter.errors import BadRequest
from adapter.generation.generation_request import check_media

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
PART = {"type": "text", "text": "Hello"}
TOOL = {"type": "function", "function": {"name": "add"}}
NAMED = {"type": "function", "function": {"name": "add"}}
PARTS = {
    "image_url": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
    "input_audio": {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    "file": {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
}
NAMES = sorted({row.name for row in TABLE if "chat" in row.endpoints})
ARGUMENTS = "messages[0].tool_calls[0].function.arguments"


MISSING = "missing_required_parameter"
ALLOWED = "tool_choice.allowed_tools"
STRUCTURED = "Invalid value for 'structured_outputs'"


def assistant(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": "x", **fields}]}


def json_schema(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": fields}}


def other() -> dict[str, Any]:
    return {"type": "function", "function": {"name": "other"}}


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


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [TOOL, {"type": "function", "function": function}]}


def test_minimal_request() -> None:
    """A request needs only a model and messages."""
    request = read()
    assert (request.model, request.limit, request.stops, request.include_usage) == ("m", None, (), False)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("model", "messages")])
def test_null_is_absent(name: str) -> None:
    """A null for an optional field has the same effect as omitting it."""
    assert read_request(body(**{name: None})).request == read_request(body()).request


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": 1}, "model", "invalid_type"),
        ({"model": ""}, "model", MISSING),
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
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": -2}, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_parameter_combination"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stop": ["a"] * 65}, "stop", "invalid_value"),
        ({"stop": 1}, "stop", "invalid_type"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream_options": {}}, "stream_options", "invalid_parameter_combination"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].file", MISSING),
        (assistant(function_call={"arguments": ""}), "messages[0].function_call.name", MISSING),
        (assistant(function_call="f"), "messages[0].function_call", "invalid_type"),
        (assistant(audio={"id": "a"}), "messages[0].audio", "invalid_type"),
        (assistant(reasoning_content=3), "messages[0].reasoning_content", "invalid_type"),
        (assistant(tool_calls=[{**CALL, "type": "custom"}]), "messages[0].tool_calls[0].type", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"min_p": 1.1}, "min_p", "invalid_value"),
        ({"typical_p": 0}, "typical_p", "invalid_value"),
        ({"logit_bias": {"2": 1, "1": 101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"1": -101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"hello": 1}}, "logit_bias.hello", "invalid_type"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1", "invalid_value"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias", "invalid_value"),
        ({"metadata": "x"}, "metadata", "invalid_type"),
        ({"prediction": [1]}, "prediction", "invalid_type"),
        ({"service_tier": 3}, "service_tier", "invalid_type"),
        ({"safety_identifier": {}}, "safety_identifier", "invalid_type"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "invalid_value"),
        ({"stop_token_ids": [1, -1]}, "stop_token_ids[1]", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_parameter_combination"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs", "invalid_parameter_combination"),
        ({"tools": [TOOL] * 129}, "tools", "invalid_value"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{}]}, "tools[0].function", MISSING),
        (tool(), "tools[1].function.name", MISSING),
        (tool(name="a" * 257), "tools[1].function.name", "invalid_value"),
        (tool(name=""), "tools[1].function.name", "invalid_value"),
        (tool(name="a b"), "tools[1].function.name", "invalid_value"),
        (tool(name="a\n"), "tools[1].function.name", "invalid_value"),
        (tool(name="a", parameters=[]), "tools[1].function.parameters", "invalid_type"),
        (tool(name="a", strict=1), "tools[1].function.strict", "invalid_type"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice.type", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {**NAMED, "x": 1}}, "tool_choice.x", "unknown_parameter"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "invalid_parameter_combination"),
        ({"tool_choice": NAMED}, "tool_choice", "invalid_parameter_combination"),
        (tool(name="f") | {"tool_choice": other()}, "tool_choice.function.name", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": allowed("add", "sub")}, f"{ALLOWED}.tools[1].function.name", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": allowed("add", mode="none")}, f"{ALLOWED}.mode", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": allowed()}, f"{ALLOWED}.tools", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_object", "schema": "{}"}}, "response_format.schema", "unknown_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", MISSING),
        (json_schema(), "response_format.json_schema.name", MISSING),
        (json_schema(name="a.b"), "response_format.json_schema.name", "invalid_value"),
        (json_schema(name="a", schema="{}"), "response_format.json_schema.schema", "invalid_type"),
        ({"structured_outputs": {}}, "structured_outputs", "invalid_value"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs", "invalid_value"),
        ({"structured_outputs": {"regex": "a", "grammar": "b"}}, "structured_outputs", "invalid_value"),
        ({"structured_outputs": {"structural_tag": "a"}}, "structured_outputs.structural_tag", "unknown_parameter"),
        ({"guided_choice": []}, "guided_choice", "invalid_value"),
        ({"guided_regex": ""}, "guided_regex", "invalid_value"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex", "invalid_parameter_combination"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"verbosity": "none"}, "verbosity", "invalid_value"),
        ({"documents": ["a"]}, "documents[0]", "invalid_type"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs", "invalid_type"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"functions": [{"name": "a b"}]}, "functions[0].name", "invalid_value"),
        ({"functions": [{"name": "f"}], "tools": [TOOL]}, "functions", "unsupported_parameter"),
        ({"functions": {"name": "f"}}, "functions", "unsupported_parameter"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call.name", "invalid_value"),
        ({"functions": [{"name": "f"}], "function_call": "any"}, "function_call", "unsupported_parameter"),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_parameter"),
    ],
)
def test_invalid_fields(fields: dict[str, Any], param: str, code: str) -> None:
    """The error for an invalid field names its exact place and the kind of mistake."""
    error = refusal(body(**fields))
    assert (error.param, error.code) == (param, code)
    assert param in error.message


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_unsupported_modalities(kind: str) -> None:
    """Images, audio and files are rejected with the type of the part, for a model that accepts only text."""
    request = read_request(body(messages=[{"role": "user", "content": [PART, PARTS[kind]]}])).request
    with pytest.raises(BadRequest) as caught:
        check_media(list(media(request.messages)), ())
    assert (caught.value.param, caught.value.code) == ("messages[0].content[1].type", "invalid_value")
    assert f"'{kind}'" in caught.value.message


def test_supported_modalities() -> None:
    """Parts of a modality that the model supports are accepted; others are rejected with their place."""
    said = msgspec.json.decode(body(messages=[USER, {"role": "user", "content": list(PARTS.values())}]))["messages"]
    messages = msgspec.convert(said, type=list[Message])
    check_media(list(media(messages)), {"image", "audio", "file"})
    with pytest.raises(BadRequest) as caught:
        check_media(list(media(messages)), {"image", "file"})
    assert caught.value.param == "messages[1].content[1].type"
    assert plain(messages)[1]["content"] == list(PARTS.values())


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
        b'{"model": "\\ud800", "n": NaN}',
        b'{"unknown": "\\udc00 \\ud800}',
        b'{"unknown": "\xed\xa0\xbd"}',
        b'{"unknown": ' + b"[" * 100_000,
    ],
)
def test_not_json(data: bytes) -> None:
    """A body that is not valid JSON or UTF-8 is rejected as invalid_json."""
    assert refusal(data).code == "invalid_json"


@pytest.mark.parametrize("data", [b"[]", b"null", b"3", b'"x"'])
def test_not_an_object(data: bytes) -> None:
    """The body must be an object."""
    error = refusal(data)
    assert (error.code, error.param) == ("invalid_type", None)


def test_errors_truncate_client_text() -> None:
    """A client's text in an error is truncated, and cannot pose as the place of the mistake."""
    spoof = " - at `$.model`" * 100_000
    for fields, param in (
        ({"reasoning_effort": spoof}, "reasoning_effort"),
        ({"messages": [{"role": spoof, "content": "x"}]}, "messages[0].role"),
        ({"response_format": {"type": "json_object", "x" * 1000: 1}}, "response_format." + "x" * 64),
        ({"x" * 1000: 1} | {f"p{n:03}": 1 for n in range(300)}, "p253"),
    ):
        error = refusal(body(**fields))
        assert error.param == param
        assert len(error.message) < 500


def test_huge_integers() -> None:
    """Integers of 5,000 digits are rejected with the name of the parameter."""
    for name in ("max_tokens", "max_completion_tokens", "min_tokens", "top_k", "seed", "priority"):
        data = body().decode().removesuffix("}") + f', "{name}": {"9" * 5000}}}'
        assert refusal(data.encode()).param == name


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_number_too_large_for_a_float(number: str) -> None:
    """A number that is too large for a float is rejected with the name of the parameter."""
    for name in ("temperature", "presence_penalty"):
        data = body().decode().removesuffix("}") + f', "{name}": {number}}}'
        assert refusal(data.encode()).param == name


def test_errors_name_the_replacement() -> None:
    """Errors for deprecated or invalid values name the replacement or the allowed values."""
    assert "'user', 'assistant', and 'tool'." in refusal(body(messages=[{"role": "robot", "content": "x"}])).message
    assert "'tool_calls'" in refusal(body(**assistant(function_call=[]))).message
    assert "'minimal', 'low'" in refusal(body(reasoning_effort="huge")).message
    assert "letters, digits" in refusal(body(**tool(name="a b"))).message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 3}, "Invalid value for 'temperature': expected a number between 0 and 2, but got 3."),
        ({"typical_p": 0}, "Invalid value for 'typical_p': expected a number greater than 0, but got 0."),
        ({"max_tokens": 0}, "Invalid value for 'max_tokens': expected an integer of at least 1, but got 0."),
        (
            {"stop_token_ids": [1, -1]},
            "Invalid value for 'stop_token_ids[1]': expected an integer of at least 0, but got -1.",
        ),
        ({"stop": ["a"] * 65}, "Invalid value for 'stop': expected an array of at most 64 items, but got 65."),
        ({"stop": ["a", ""]}, "Invalid value for 'stop[1]': expected a non-empty string."),
        ({"stop": 1}, "Invalid type for 'stop': expected a string or an array, but got an integer instead."),
        ({"n": 1.5}, "Invalid type for 'n': expected an integer, but got a decimal number instead."),
        ({"messages": None}, "Invalid type for 'messages': expected an array, but got null instead."),
        (
            {"logit_bias": {"a": 1}},
            "Invalid type for 'logit_bias.a': expected the key to be an integer, but got a string instead.",
        ),
        (
            {"logit_bias": {"1": 101}},
            "Invalid value for 'logit_bias.1': expected a number between -100 and 100, but got 101.",
        ),
        (
            {"verbosity": "x"},
            "Invalid value for 'verbosity': 'x' is not supported. Supported values are: 'low', 'medium', and 'high'.",
        ),
        ({"tools": [TOOL], "tool_choice": {**NAMED, "x": 1}}, "Unknown parameter: 'tool_choice.x'."),
        ({"tools": [{"type": "function"}]}, "Missing required parameter: 'tools[0].function'."),
        (
            {"structured_outputs": {"regex": "a", "grammar": "b"}},
            f"{STRUCTURED}: exactly one of json, regex, choice, grammar, json_object must be set, got 2.",
        ),
        ({"store": True}, "Unsupported parameter: 'store' (responses are not stored). Only false is accepted."),
    ],
)
def test_error_messages(fields: dict[str, Any], message: str) -> None:
    """The message of an error says what was expected and what was received."""
    assert refusal(body(**fields)).message == message


def test_unknown_parameters() -> None:
    """Unknown parameters are accepted and reported; known ones without effect are not reported."""
    assert read_request(body(zeta=1, alpha={}, user="me", metadata={"a": "b"})).unknown == ("alpha", "zeta")


def test_strict_mode() -> None:
    """In strict mode unknown parameters are rejected, and known ones without effect are still accepted."""
    with pytest.raises(BadRequest) as caught:
        read_request(body(zeta=1, alpha=2, metadata={}), strict=True)
    assert (caught.value.param, caught.value.code) == ("alpha", "unknown_parameter")
    assert read_request(body(metadata={}, store=False), strict=True).unknown == ()


def test_tools() -> None:
    """Functions and all forms of tool_choice are read; a choice that forces no call needs no tools."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    function = {"name": "add-2_x", "description": "Adds", "parameters": schema, "strict": True}
    tools = [TOOL, {"type": "function", "function": function}]
    request = read(tools=tools, tool_choice=NAMED, parallel_tool_calls=False)
    assert request.tools is not None
    assert msgspec.to_builtins(request.tools[1]) == tools[1]
    assert isinstance(request.tool_choice, NamedTool)
    for choice in ("none", "auto", "required", allowed("add"), allowed("add", "add-2_x", mode="required")):
        assert msgspec.to_builtins(read(tools=tools, tool_choice=choice).tool_choice) == choice
    assert read(tool_choice="auto").tool_choice == "auto"


def test_output_formats() -> None:
    """Output formats are read from response_format, structured_outputs and the guided_* parameters."""
    schema = {"type": "object"}
    wanted = read(**json_schema(name="a", schema=schema, strict=True)).response_format
    assert wanted == JsonSchemaFormat(JsonSchema(name="a", schema=schema, strict=True))
    assert read().structured is None
    assert read(guided_choice=["a", "b"]).structured == StructuredOutputs(choice=["a", "b"])
    assert read(guided_json="{}").structured == StructuredOutputs(json="{}")
    assert read(structured_outputs={"regex": "a+"}).structured == StructuredOutputs(regex="a+")


def test_sampling() -> None:
    """Sampling parameters at the ends of their ranges are read unchanged."""
    request = read(logit_bias={"0": -100, "50256": 100}, n=128, top_k=-1, logprobs=True, top_logprobs=20, stop=["a"])
    assert request.logit_bias == {0: -100.0, 50256: 100.0}
    assert (request.n, request.top_k, request.num_logprobs, request.stops) == (128, -1, 20, ("a",))
    assert (read(logprobs=True).num_logprobs, read(top_logprobs=0).num_logprobs) == (0, None)
    options = {"include_usage": True, "continuous_usage_stats": True, "include_obfuscation": False}
    assert read(stream=True, stream_options=options).continuous_usage
    assert not read(stream=True, stream_options={"continuous_usage_stats": True}).continuous_usage


def test_reasoning_in_the_history() -> None:
    """An assistant message in the history may contain the model's reasoning."""
    said = read(**assistant(reasoning_content="Hm.", reasoning=None, audio=None, function_call=None)).messages
    assert said == [AssistantMessage(content="x", reasoning_content="Hm.")]


def test_conversation() -> None:
    """Messages of all roles, with string content or parts, are converted to the form that chat templates expect."""
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


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "x"},
        {"reasoning": "x"},
        {"content": [], "tool_calls": [CALL]},
        {"content": [], "refusal": "No."},
        {"content": ""},
    ],
)
def test_complete_messages_of_the_assistant(message: dict[str, Any]) -> None:
    """A message of the assistant is complete with anything that the gateway itself, or another server, may answer."""
    said = plain(read(messages=[{"role": "assistant", **message}]).messages)
    assert said[0]["role"] == "assistant"


def test_integers_written_as_floats() -> None:
    """A number with an integral value is an integer, however it is written."""
    assert read(max_tokens=10.0, n=2.0, seed=-3.0).seed == -3


def test_invalid_arguments_in_the_history() -> None:
    """Tool call arguments in the history that are not valid JSON are passed on as text."""
    call = {**CALL, "function": {"name": "add", "arguments": "{a"}}
    said = plain(read(messages=[{"role": "assistant", "tool_calls": [call]}]).messages)
    assert said[0]["tool_calls"][0]["function"]["arguments"] == "{a"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES), _JSON))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Any JSON values of known parameters are read, or rejected with a BadRequest."""
    data = msgspec.json.encode({"model": "m", "messages": [USER]} | fields)
    with suppress(BadRequest):
        assert read_request(data)[0].model


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Arbitrary bytes are rejected with a BadRequest."""
    with pytest.raises(BadRequest):
        read_request(data)
