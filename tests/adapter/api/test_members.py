"""Unknown members of messages, tools and other parameters."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from adapter.api.chat.validation import read_request
from adapter.config import Settings
from adapter.errors import BadRequest
from tests.fakes import ASK, gateway, saying

USER: dict[str, Any] = {"role": "user", "content": "Hello"}
CALL: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLING: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "c", "content": "x"}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look"}}
CACHED = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}


def body(*messages: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages or [USER], **fields}).encode()


def unknown(*messages: dict[str, Any], **fields: Any) -> tuple[str, ...]:
    return read_request(body(*messages, **fields)).unknown


UNKNOWN = {
    "messages[1].cache_control": body(USER, {**CALLING, "cache_control": {"type": "ephemeral"}}, RESULT),
    "messages[0].content[1].cache_control": body({"role": "user", "content": [{"type": "text", "text": ""}, CACHED]}),
    "messages[0].prefix": body({**USER, "prefix": True}),
    "messages[1].tool_calls[0].function.x": body(
        USER, {**CALLING, "tool_calls": [{**CALL, "function": {**CALL["function"], "x": 1}}]}, RESULT
    ),
    "tools[1].function.foo": body(tools=[TOOL, {**TOOL, "function": {"name": "b", "foo": 1}}]),
    "tools[0].cache_control": body(tools=[{**TOOL, "cache_control": {"type": "ephemeral"}}]),
    "response_format.json_schema.foo": body(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "foo": 1}}
    ),
    "stream_options.foo": body(stream=True, stream_options={"foo": True}),
}


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_members_are_named(path: str) -> None:
    """An unknown member is named by its path, and refused if the operator wants it so."""
    assert read_request(UNKNOWN[path]).unknown == (path,)
    with pytest.raises(BadRequest) as caught:
        read_request(UNKNOWN[path], strict=True)
    assert (caught.value.param, caught.value.code) == (path, "unknown_parameter")


@pytest.mark.parametrize(
    "message",
    [
        # What the libraries of OpenAI send back, complete and streamed.
        {**CALLING, "annotations": [], "audio": None, "function_call": None, "refusal": None, "parsed": {"a": 1}},
        {**CALLING, "tool_calls": [{**CALL, "index": 0, "function": {**CALL["function"], "parsed_arguments": {}}}]},
        {**CALLING, "name": None, "reasoning_details": [{"type": "reasoning.text", "text": "x"}]},
        {**CALLING, "tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "x"}}}]},
        {**CALLING, "some_null": None, "some_list": [], "some_object": {}},
    ],
)
def test_members_of_answers_are_taken_back(message: dict[str, Any]) -> None:
    """Members that servers add to answers, and null and empty ones, are accepted even with `strict`."""
    assert read_request(body(USER, message, RESULT), strict=True).unknown == ()


def test_what_has_any_members() -> None:
    """Schemas, and variables of templates, have members of their own."""
    parameters = {"type": "object", "properties": {"a": {"x-own": 1}}}
    tools = [{"type": "function", "function": {"name": "a", "parameters": parameters}}]
    assert unknown(tools=tools, chat_template_kwargs={"a": 1}, metadata={"b": "c"}) == ()


def test_repeated_paths_are_named_once() -> None:
    """Of the same member in thousands of messages, the first is named."""
    assert unknown(*[{"role": "user", "content": [CACHED]}] * 4000) == ("messages[0].content[0].cache_control",)


def test_any_number_of_unknown_members() -> None:
    """Of thousands of members, as many as the header has room for are named."""
    assert len(unknown({**USER, **{f"m{number}": 1 for number in range(5000)}})) == 64


async def test_header() -> None:
    """Paths are in the header as ASCII, at most 1 KiB of them."""
    named = {"role": "user", "content": "x", "größe,\r\n": 1, **{"n" * 200 + str(number): 1 for number in range(9)}}
    async with gateway(saying("Hi")) as url, httpx.AsyncClient() as client:
        response = await client.post(url + "/v1/chat/completions", json=ASK | {"messages": [named]})
    header = response.headers["x-ignored-params"]
    assert response.status_code == 200
    assert header.startswith("messages[0].gr??e???, messages[0].nnn")
    assert (header.isascii(), len(header) <= 1024, header.endswith(", ...")) == (True, True, True)


@pytest.mark.parametrize("member", ["prefix", "partial"])
async def test_a_prefix_is_continued(member: str) -> None:
    """The last message of the assistant is continued if it says so; others, and by default the last one, are not."""
    node = saying(" there")
    begun = {"role": "assistant", "content": "Hello", member: True}
    conversations = ([USER, begun], [USER, {**begun, member: False}], [USER, begun, USER])
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for messages in conversations:
            response = await client.post("/v1/chat/completions", json=ASK | {"messages": messages})
            assert response.status_code == 200
            assert "x-ignored-params" not in response.headers
    prompts = [request.text or "" for request in node.requests]
    assert prompts[0].endswith("Assistant: Hello")
    assert all(prompt.endswith("Assistant:") for prompt in prompts[1:])


ORPHANS = {
    "messages[1].role": [USER, RESULT],
    "messages[2].tool_call_id": [USER, CALLING, {**RESULT, "tool_call_id": "other"}],
    "messages[3].role": [USER, CALLING, RESULT, {**CALLING, "tool_calls": [{**CALL, "id": "d"}]}],
}


@pytest.mark.parametrize("param", ORPHANS)
async def test_calls_and_results_that_do_not_match(param: str) -> None:
    """They are served as far as the template can, and refused with `strict`, as OpenAI does."""
    body = ASK | {"messages": ORPHANS[param]}
    for strict in (False, True):
        async with gateway(saying("Hi"), settings=Settings(access_log=False, strict=strict)) as url:
            async with httpx.AsyncClient(base_url=url) as client:
                response = await client.post("/v1/chat/completions", json=body)
        assert response.status_code == (400 if strict else 200)
    error = response.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_unanswered_calls_before_another_message() -> None:
    """The error is at the last message that could have answered, and names the calls."""
    with pytest.raises(BadRequest, match=r"did not have response messages: c$") as caught:
        read_request(body(USER, CALLING, USER), strict=True)
    assert caught.value.param == "messages[1].role"
    assert read_request(body(USER, CALLING, RESULT, USER), strict=True).unknown == ()


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}])
def test_empty_messages_of_the_assistant(content: dict[str, Any]) -> None:
    """Agents send back answers that had neither text nor calls; only `strict` refuses them."""
    message = {"role": "assistant", **content}
    assert len(read_request(body(USER, message, USER)).request.messages) == 3
    with pytest.raises(BadRequest) as caught:
        read_request(body(USER, message, USER), strict=True)
    assert caught.value.param == "messages[1].content"


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}])
async def test_empty_results(content: dict[str, Any]) -> None:
    """A tool that returns nothing must not end a conversation; `strict` refuses its message, but not an empty text."""
    result = {"role": "tool", "tool_call_id": RESULT["tool_call_id"], **content}
    node = saying("Hi")
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for messages in ([USER, CALLING, result], [USER, CALLING, {**result, "content": ""}]):
            response = await client.post("/v1/chat/completions", json=ASK | {"messages": messages})
            assert response.status_code == 200
    assert node.requests[0].text == node.requests[1].text
    with pytest.raises(BadRequest) as caught:
        read_request(body(USER, CALLING, result), strict=True)
    assert caught.value.param == "messages[2].content"
    assert read_request(body(USER, CALLING, {**result, "content": ""}), strict=True).unknown == ()


@pytest.mark.parametrize(
    ("arguments", "as_text"), [({"a": 1}, '{"a": 1}'), (None, "{}"), ({}, "{}"), ("", "{}"), ([1], None), (7, None)]
)
async def test_arguments_that_are_not_text(arguments: Any, as_text: str | None) -> None:
    """Calls with decoded arguments, or without any, are taken as if they were text; `strict` refuses them."""
    given, same = (
        [USER, {**CALLING, "tool_calls": [{**CALL, "function": {"name": "look", "arguments": value}}]}, RESULT]
        for value in (arguments, as_text)
    )
    if as_text is None:
        with pytest.raises(BadRequest, match="arguments"):
            read_request(body(*given))
        return
    node = saying("Hi")
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for messages in (given, same):
            response = await client.post("/v1/chat/completions", json=ASK | {"messages": messages})
            assert response.status_code == 200
    assert node.requests[0].text == node.requests[1].text
    if not isinstance(arguments, str):
        with pytest.raises(BadRequest) as caught:
            read_request(body(*given), strict=True)
        assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_tool_choice_without_tools(choice: str) -> None:
    """A choice that forces nothing needs no tools, unless the operator wants it so."""
    with pytest.raises(BadRequest) as caught:
        read_request(body(tool_choice=choice), strict=True)
    assert (caught.value.param, caught.value.code) == ("tool_choice", "invalid_parameter_combination")
    if choice != "required":
        assert read_request(body(tool_choice=choice)).unknown == ()
