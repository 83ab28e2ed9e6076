"""Contents of chunks: text, reasoning, tool calls, logprobs, usage and finish reasons."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.chat import ChatUsage
from subnet.errors import (
    NodeError,
    SubnetError,
    WireError,
)
from subnet.http.sse import Event
from subnet.protocols.openai.chat_response import ChatResponse
from subnet.protocols.openai.ignored_parameters import names
from subnet.protocols.openai.openai_choice import Choice
from subnet.protocols.openai.tool_calls import ToolCalls
from tests.chat_node import Recorder, chat_scripted
from tests.provider import (
    TEXT,
    Pause,
    Script,
    answer,
    chunk,
    events,
    pieces,
    raw,
    usage_of,
)

PIECES = len(pieces(TEXT))
USED = ChatUsage(prompt_tokens=7, completion_tokens=PIECES)


FIELDS = names(
    "choices index delta message content type text thinking reasoning refusal tool_calls function_call function id name"
    " arguments finish_reason logprobs token logprob bytes top_logprobs usage prompt_tokens error code x_groq"
)
PLAIN = st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.sampled_from(["", "x", "stop", "error", "{}"])
JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(FIELDS)), inner, max_size=5),
    max_leaves=20,
)


@given(st.lists(st.fixed_dictionaries({"choices": st.lists(JSON, max_size=2)}) | JSON, max_size=4))
def test_any_chunks_are_an_answer_or_a_subnet_error(chunks: list[Any]) -> None:
    """Any sequence of chunks is a valid answer or raises a SubnetError."""
    result = Recorder()
    choices = [Choice(0, logprobs=True), Choice(1)]
    answer = ChatResponse("peer", choices, result.emit, lambda body: NodeError(str(body)), SimpleNamespace())
    try:
        for each in chunks:
            answer.event(Event(msgspec.json.encode(each).decode()))
        answer.done = True
        answer.finish()
    except SubnetError:
        return
    for choice in (0, 1):
        result.calls(choice)
        assert len(result.finishes(choice)) == (
            choice in {delta.choice for delta in result.deltas if delta.finish_reason}
        )


# Field names of different servers.


@pytest.mark.parametrize(
    ("deltas", "text", "reasoning"),
    [
        ([{"role": "assistant", "content": None}, {"content": "a"}, {"role": "assistant", "content": "b"}], "ab", ""),
        ([None, {}, {"content": "a"}], "a", ""),
        ([{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"content": ["c"]}], "abc", ""),
        (
            [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, {"content": "a"}],
            "a",
            "hm",
        ),
        ([{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "a"}], "a", "hm"),
        ([{"reasoning": "hm", "content": ""}, {"content": "a"}], "a", "hm"),
        ([{"thinking": "hm"}, {"content": "a"}], "a", "hm"),
        (
            [{"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]}, {"content": "a"}],
            "a",
            "hm",
        ),
        ([{"reasoning_content": None, "reasoning": {"effort": 1}, "content": "a"}], "a", ""),
    ],
)
async def test_text_and_reasoning(deltas: list[Any], text: str, reasoning: str) -> None:
    """Text and reasoning are read from every field and form that servers use."""
    result = await chat_scripted(events(*(chunk(delta) for delta in deltas), chunk(finish="stop")))
    assert (result.text(), result.reasoning()) == (text, reasoning)


async def test_refusals() -> None:
    """A refusal is kept apart from the text, in its own field or as a part of the content."""
    result = await chat_scripted(
        events(chunk({"refusal": "I "}), chunk({"content": [{"type": "refusal", "refusal": "won't"}]}))
    )
    assert (result.text(), result.refusal()) == ("", "I won't")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("eos_token", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("STOP", "stop"),
        ("whatever", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("content-filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
    ],
)
async def test_finish_reasons(reason: str, expected: str) -> None:
    """Every server's finish reasons are converted to OpenAI's, and unknown ones to stop."""
    result = await chat_scripted(events(chunk({"content": "x"}, ""), chunk({"content": "y"}), chunk(finish=reason)))
    assert (result.text(), result.finishes()) == ("xy", [expected])


@pytest.mark.parametrize(
    "chunks",
    [
        [{**chunk(finish="stop"), **usage_of(7, 6)}],
        [chunk(finish="stop"), {**chunk(), "choices": [], **usage_of(7, 6)}],
        [{"choices": [], **usage_of(7, 6)}, chunk(finish="stop")],
        [{**chunk(), **usage_of(7, 1)}, {**chunk(), **usage_of(7, 5)}, {**chunk(finish="stop"), **usage_of(7, 6)}],
        [{**chunk(finish="stop"), "x_groq": usage_of(7, 6)}],
        [chunk(finish="stop", **usage_of(7, 6))],
        [{**chunk(finish="stop"), "prompt_eval_count": 7, "eval_count": 6}],
        [{**chunk(finish="stop"), "usage": {"input_tokens": 7, "output_tokens": 6}}],
        [{**chunk(finish="stop"), **usage_of(7, 6)}, {"choices": [], "usage": None}],
        [
            {**chunk(finish="stop"), **usage_of(7, 6)},
            {"choices": [], "usage": {"prompt_tokens": "?", "completion_tokens": -1}},
        ],
    ],
)
async def test_usage(chunks: list[Any]) -> None:
    """The last valid usage is read from every place where servers report it."""
    usage = (await chat_scripted(events(chunk({"content": TEXT}), *chunks))).usage
    assert usage is not None
    assert msgspec.structs.replace(usage, extra=None) == USED


@pytest.mark.parametrize(
    ("more", "cached", "reasoning"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}}, 3, 2),
        ({"prompt_cache_hit_tokens": 3}, 3, 0),
        ({"cached_tokens": 3}, 3, 0),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, 0, 0),
    ],
)
async def test_usage_details(more: dict[str, Any], cached: int, reasoning: int) -> None:
    """Cached and reasoning tokens are read in the formats of OpenAI, DeepSeek and Moonshot."""
    result = await chat_scripted(events({**chunk({"content": "x"}, "stop"), **usage_of(7, 6, **more)}))
    assert result.usage is not None
    assert msgspec.structs.replace(result.usage, extra=None) == ChatUsage(
        prompt_tokens=7, completion_tokens=6, cached_tokens=cached, reasoning_tokens=reasoning
    )


async def test_missing_end_of_the_response() -> None:
    """A response without usage, [DONE] and an end is complete shortly after its last finish reason."""
    result = await chat_scripted(Script([*answer(usage=False, done=False).steps, Pause()]))
    assert (result.text(), result.finishes(), result.usage) == (TEXT, ["stop"], None)


# Tool calls.


def call(arguments: Any = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    function = {} if name is None else {"name": name}
    return {**more, "function": {**function, **({} if arguments is None else {"arguments": arguments})}}


OPENAI = [
    [call("", "f", index=0, id="a")],
    [call('{"x"', index=0)],
    [call(": 1}", index=0)],
    [call("{}", "g", index=1, id="b")],
]


@pytest.mark.parametrize(
    "chunks",
    [
        OPENAI,
        [[call('{"x": 1}', "f", index=0, id="a"), call("{}", "g", index=1, id="b")]],
        # Ollama and Gemini: complete calls, all with index 0 or without one.
        [[call('{"x": 1}', "f", index=0, id="a")], [call("{}", "g", index=0, id="b")]],
        [[call('{"x": 1}', "f", index=0, id="a"), call("{}", "g", index=0, id="b")]],
        [[call('{"x": 1}', "f", index=0), call("{}", "g", index=0)]],
        [[call('{"x": 1}', "f"), call("{}", "g")]],
        [[call('{"x": 1}', "f", id="a")], [call("{}", "g", id="b")]],
        # No ids.
        [[call("", "f", index=0)], [call('{"x"', index=0)], [call(": 1}", index=0)], [call("{}", "g", index=1)]],
        # No indexes: pieces are assigned by id or by order.
        [[call("", "f", id="a")], [call('{"x"', id="a")], [call(": 1}", id="a")], [call("{}", "g", id="b")]],
        [[call("", "f", id="a")], [call('{"x"')], [call(": 1}")], [call("{}", "g", id="b")]],
        # Ids and names repeated.
        [
            [call("", "f", index=0, id="a")],
            [call('{"x"', "f", index=0, id="a")],
            [call(": 1}", "f", index=0, id="a")],
            [call("{}", "g", index=1, id="b")],
        ],
        [
            [call("", "f", index=0)],
            [call('{"x"', "f", index=0)],
            [call(": 1}", "f", index=0)],
            [call("{}", "g", index=1)],
        ],
        [
            [call("", "f", index=0, id="a")],
            [call('{"x"', "", index=0, id="")],
            [call(": 1}", None, index=0, id=None)],
            [call("{}", "g", index=1, id="b")],
        ],
        # A new id in each piece, as in older versions of vLLM.
        [
            [call("", "f", index=0, id="a")],
            [call('{"x"', index=0, id="i")],
            [call(": 1}", index=0, id="j")],
            [call("{}", "g", index=1, id="b")],
        ],
        [[call("", "f", id="a")], [call('{"x"', id="i")], [call(": 1}", id="j")], [call("{}", "g", id="b")]],
        # Indexes that begin elsewhere, and the name after the id.
        [[call("", "f", index=5, id="a")], [call('{"x": 1}', index=5)], [call("{}", "g", index=9, id="b")]],
        [
            [call("", index=0, id="a")],
            [call('{"x"', "f", index=0)],
            [call(": 1}", index=0)],
            [call("{}", "g", index=1, id="b")],
        ],
        # Each piece of the arguments repeats all before it, and the last chunk repeats the calls.
        [
            [call("{", "f", index=0, id="a")],
            [call('{"x"', index=0)],
            [call('{"x": 1', index=0)],
            [call('{"x": 1}', index=0)],
            [call('{"x": 1}', "f", index=0, id="a"), call("{}", "g", index=1, id="b")],
        ],
        # No arguments: null, or nothing at all.
        [[call('{"x": 1}', "f", index=0, id="a")], [call(None, "g", index=1, id="b")]],
        [[call('{"x": 1}', "f", index=0, id="a")], [call("", "g", index=1, id="b")]],
        [[call('{"x": 1}', "f", index=0, id="a")], [{"index": 1, "function": {"name": "g", "arguments": None}}]],
    ],
)
async def test_tool_calls(chunks: list[list[Any]]) -> None:
    """Tool calls are numbered, named and identified once, however the server does it."""
    script = events(*(chunk({"tool_calls": calls}) for calls in chunks), chunk(finish="stop"))
    result = await chat_scripted(script)
    assert result.calls() == [("f", '{"x": 1}'), ("g", "{}")]
    assert result.finishes() == ["tool_calls"]


@pytest.mark.parametrize(
    "chunks",
    [
        [[call(None, "get_", index=0, id="a")], [call(None, "weather", index=0)], [call("{}", index=0)]],
        [[call("", "get", index=0)], [call("", "_wea", index=0)], [call("{}", "ther", index=0)]],
        [[call(None, "get_", index=0, id="a")], [call(None, "weather", index=0, id="a")]],
    ],
)
async def test_names_in_pieces(chunks: list[list[Any]]) -> None:
    """A function's name that arrives in pieces is reported as a whole, once."""
    script = events(*(chunk({"tool_calls": calls}) for calls in chunks), chunk(finish="tool_calls"))
    result = await chat_scripted(script)
    assert result.calls() == [("get_weather", "{}")]
    assert [call.name for delta in result.deltas for call in delta.calls if call.name] == ["get_weather"]


@given(st.recursive(st.integers() | st.text('a"{'), lambda inner: st.dictionaries(st.text('a"{'), inner, max_size=2)))
def test_arguments_in_any_pieces(value: Any) -> None:
    """Arguments arrive unchanged in pieces of one character, also if they contain their own beginning."""
    text = json.dumps({"a": value})
    calls = ToolCalls()
    deltas = calls.read([call("", "f", index=0)])
    for letter in text:
        deltas += calls.read([call(letter, index=0)])
    deltas += calls.finish()
    assert "".join(delta.arguments for delta in deltas) == text


@pytest.mark.parametrize("field", ["content", "reasoning_content", "refusal"])
async def test_surrogate_pairs_in_two_events(field: str) -> None:
    """The halves of a surrogate pair in two events are joined, and one that stays alone is replaced."""
    parts = [r"a \ud83d", r"\ude00 b \ude00\ud83d\ude00 c\ud83d", "d", r"\ud83d"]
    chunks = [f'data: {{"choices":[{{"index":0,"delta":{{"{field}":"{part}"}}}}]}}\n\n' for part in parts]
    end = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    result = await chat_scripted(raw(*chunks, end))
    text = result.text() + result.reasoning() + result.refusal()
    assert text.rstrip("\ufffd") == "a 😀 b \ufffd😀 c\ufffdd"


async def test_surrogate_pairs_in_arguments() -> None:
    """The halves of a surrogate pair in two pieces of a call's arguments are joined."""
    parts = [r"{\"a\": \"\ud83d", r"\ude00\"}"]
    call_of = '{"index":0,"function":{"name":"f","arguments":"%s"}}'
    chunks = [f'data: {{"choices":[{{"delta":{{"tool_calls":[{call_of % part}]}}}}]}}\n\n' for part in parts]
    result = await chat_scripted(raw(*chunks, 'data: {"choices":[{"finish_reason":"stop"}]}\n\n', "data: [DONE]\n\n"))
    assert result.calls() == [("f", '{"a": "😀"}')]


async def test_surrogate_pairs_in_two_calls() -> None:
    """The half of a pair in the arguments of one call is not joined with another call's."""
    call_of = '{"index":%d,"id":"c%d","function":{"name":"f","arguments":"%s"}}'
    parts = [(0, r"{\"a\":\"\ud83d"), (1, r"{}"), (0, r"\ude00\"}")]
    calls = [call_of % (index, index, part) for index, part in parts]
    chunks = [f'data: {{"choices":[{{"delta":{{"tool_calls":[{one}]}}}}]}}\n\n' for one in calls]
    result = await chat_scripted(raw(*chunks, 'data: {"choices":[{"finish_reason":"stop"}]}\n\n', "data: [DONE]\n\n"))
    assert result.calls() == [("f", '{"a":"😀"}'), ("f", "{}")]


async def test_empty_events_and_choices() -> None:
    """An event or a choice that is null, and an index that is text, do not end an answer."""
    chunks = [
        "data: null\n\n",
        'data: {"choices":[null]}\n\n',
        'data: {"choices":[{"index":"0","delta":{"content":"a"}}]}\n\n',
    ]
    assert (await chat_scripted(raw(*chunks, "data: [DONE]\n\n"))).text() == "a"


async def test_numbers_that_are_not_json() -> None:
    """NaN and Infinity, which Python's reader accepts, do not end an answer."""
    chunks = ['data: {"choices":[{"delta":{"content":"a"}}],"x":NaN}\n\n', 'data: {"choices":[],"y":-Infinity}\n\n']
    assert (await chat_scripted(raw(*chunks, "data: [DONE]\n\n"))).text() == "a"


async def test_tool_call_ids_are_kept() -> None:
    """The server's ids of tool calls are kept, because clients send them back."""
    result = await chat_scripted(
        events(*(chunk({"tool_calls": calls}) for calls in OPENAI), chunk(finish="tool_calls"))
    )
    assert [piece.id for delta in result.deltas for piece in delta.calls if piece.id] == ["a", "b"]


async def test_arguments_that_are_an_object() -> None:
    """Arguments that are an object are converted to JSON text."""
    result = await chat_scripted(events(chunk({"tool_calls": [call({"x": [1, "é"]}, "f")]})))
    assert (result.calls(), result.finishes()) == ([("f", '{"x":[1,"é"]}')], ["tool_calls"])


async def test_function_call() -> None:
    """The older function_call becomes a tool call, also when it is streamed."""
    script = events(
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}),
        chunk(finish="function_call"),
    )
    result = await chat_scripted(script)
    assert (result.calls(), result.finishes()) == ([("f", "{}")], ["tool_calls"])


@pytest.mark.parametrize("calls", [{"a": 1}, [1], [{"index": 0}], [call("{}", index=0)]])
async def test_tool_calls_without_a_name_are_rejected(calls: Any) -> None:
    """Tool calls without a function name are rejected."""
    with pytest.raises(WireError):
        await chat_scripted(events(chunk({"tool_calls": calls}), chunk(finish="stop")))


# Logprobs.


async def test_logprobs() -> None:
    """Logprob entries get missing bytes from their text, and lose unknown fields."""
    logprobs = {
        "content": [
            {"token": "é", "logprob": -1, "id": 5, "top_logprobs": [{"token": "a", "logprob": -2.5, "bytes": [97]}]}
        ]
    }
    result = await chat_scripted(
        events(chunk({"content": "é"}, logprobs=logprobs), chunk(finish="stop", logprobs=None)), logprobs=True
    )
    assert result.logprobs() == [
        {
            "token": "é",
            "logprob": -1.0,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "a", "logprob": -2.5, "bytes": [97]}],
        }
    ]


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {"logprob": -1.0},
        {"token": "a"},
        {"token": "a", "logprob": "low"},
        {"token": "a", "logprob": True},
        {"token": "a", "logprob": -1.0, "bytes": [256]},
        {"token": "a", "logprob": -1.0, "bytes": "a"},
        {"token": "a", "logprob": -1.0, "top_logprobs": {"a": -1.0}},
        {"token": "a", "logprob": -1.0, "top_logprobs": [{}]},
    ],
)
async def test_invalid_logprobs_are_rejected(entry: Any) -> None:
    """Invalid logprob entries are rejected."""
    with pytest.raises(WireError):
        await chat_scripted(events(chunk({"content": "a"}, logprobs={"content": [entry]})), logprobs=True)


async def test_logprobs_that_were_not_requested_are_ignored() -> None:
    """Logprobs that were not requested are ignored without validation."""
    result = await chat_scripted(events(chunk({"content": "a"}, "stop", logprobs={"content": [1]})))
    assert (result.text(), result.logprobs()) == ("a", [])
