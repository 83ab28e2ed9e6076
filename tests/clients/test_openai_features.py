"""The openai package against real processes and a real model: tools, schemas, logprobs and helpers."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI, pydantic_function_tool
from openai.lib.streaming.chat import ContentDoneEvent, FunctionToolCallArgumentsDoneEvent, LogprobsContentDoneEvent
from pydantic import BaseModel

from tests.clients.asking import Town, ask, joined

TOOLS = [pydantic_function_tool(Town, name="settle")]
NAMED = {"type": "function", "function": {"name": "settle"}}


class Way(BaseModel):
    """Object with nested objects."""

    start: Town
    end: Town


_TOWN = {
    "type": "json_schema",
    "json_schema": {"name": "town", "strict": True, "schema": Town.model_json_schema()},
}
_NOTHING = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def calling(**more: Any) -> dict[str, Any]:
    return ask(**{"tools": TOOLS, "tool_choice": NAMED, "max_tokens": 60, "parallel_tool_calls": False, **more})


def test_stream_helper(client: OpenAI) -> None:
    """The streaming helper's final completion equals the whole answer, with n, logprobs and a schema."""
    asked = ask(n=2, logprobs=True, top_logprobs=2, temperature=1, max_tokens=60, response_format=_TOWN)
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert [one.message.content for one in final.choices] == [one.message.content for one in whole.choices]
    assert [one.logprobs for one in final.choices] == [one.logprobs for one in whole.choices]
    assert [one.finish_reason for one in final.choices] == [one.finish_reason for one in whole.choices]
    assert final.usage == whole.usage
    assert sum(isinstance(event, ContentDoneEvent) for event in events) == 2
    assert sum(isinstance(event, LogprobsContentDoneEvent) for event in events) == 2


def test_logprobs(client: OpenAI) -> None:
    """The bytes of logprob entries spell the content, and at temperature 0 each token is the likeliest."""
    (choice,) = client.chat.completions.create(**ask(logprobs=True, top_logprobs=3)).choices
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.logprob == max(top.logprob for top in token.top_logprobs) for token in tokens)


def test_parse(client: OpenAI) -> None:
    """With a Pydantic class as response_format, `parse` returns an object of it."""
    done = client.chat.completions.parse(**ask(response_format=Town, max_tokens=60))
    assert isinstance(done.choices[0].message.parsed, Town)


def test_parse_nested_objects(client: OpenAI) -> None:
    """The streaming helper parses an object with nested objects, and its pieces add up to it."""
    with client.chat.completions.stream(**ask(response_format=Way, max_tokens=120)) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        (choice,) = stream.get_final_completion().choices
    assert isinstance(choice.message.parsed, Way)
    assert Way.model_validate_json("".join(pieces)) == choice.message.parsed


def test_json_object(client: OpenAI) -> None:
    """With response_format json_object, the answer starts as a JSON object."""
    done = client.chat.completions.create(**ask(response_format={"type": "json_object"}))
    assert (done.choices[0].message.content or "").lstrip().startswith("{")


def test_tools(client: OpenAI) -> None:
    """A forced call to a strict tool has valid arguments, and its result can be sent back."""
    done = client.chat.completions.parse(**calling())
    (choice,) = done.choices
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "settle")
    assert isinstance(call.function.parsed_arguments, Town)
    conversation = [
        *ask()["messages"],
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "Settled."},
    ]
    assert client.chat.completions.create(**ask(messages=conversation, max_tokens=4)).choices[0].message


def test_stream_of_a_tool_call(client: OpenAI) -> None:
    """The streaming helper assembles the same tool call as without streaming, and reports the end of its arguments."""
    (whole,) = client.chat.completions.create(**calling()).choices[0].message.tool_calls
    with client.chat.completions.stream(**calling()) as stream:
        done = [event for event in stream if isinstance(event, FunctionToolCallArgumentsDoneEvent)]
        (choice,) = stream.get_final_completion().choices
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.function.arguments == whole.function.arguments == done[0].arguments
    assert choice.finish_reason == "tool_calls"


def test_required(client: OpenAI) -> None:
    """With tool_choice "required", one of the offered tools is called."""
    other = {"type": "function", "function": {"name": "leave", "strict": True, "parameters": _NOTHING}}
    done = client.chat.completions.create(**calling(tools=[*TOOLS, other], tool_choice="required"))
    (call,) = done.choices[0].message.tool_calls
    assert call.function.name in ("settle", "leave")
    json.loads(call.function.arguments)


def test_raw_responses(client: OpenAI) -> None:
    """The client's raw responses have the headers and the body, whole and streamed."""
    raw = client.chat.completions.with_raw_response.create(**ask())
    assert raw.headers["x-request-id"] == raw.request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0
    with client.chat.completions.with_streaming_response.create(**ask(stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert joined(list(response.parse())) == raw.parse().choices[0].message.content
