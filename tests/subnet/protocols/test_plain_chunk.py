"""Chunks that are decoded by their type: they mean the same as in the lenient reading, whatever they have."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.chat import ChatDelta, ChatText
from subnet.errors import NodeError, SubnetError
from subnet.http.sse import Event
from subnet.protocols.openai.chat_response import ChatResponse
from subnet.protocols.openai.openai_choice import Choice
from subnet.protocols.openai.plain_chunk import decode_plain
from tests.provider import chunk

SMALL = st.sampled_from([None, "", "a", "stop", 0, 1, True, 1.5, [], {}, ["a"], {"a": None}, "\ud83d", "\ude00", "é🙂"])
DELTAS = st.dictionaries(
    st.sampled_from(["content", "role", "refusal", "tool_calls", "reasoning", "reasoning_content", "audio"]), SMALL
)
CHOICES = st.dictionaries(
    st.sampled_from(["index", "finish_reason", "logprobs", "message", "stop_reason", "content_filter_results"]), SMALL
)
CHUNKS = st.dictionaries(
    st.sampled_from(["id", "object", "created", "model", "usage", "error", "provider", "system_fingerprint"]),
    SMALL | st.sampled_from(["error", "chat.completion.chunk", 10**30, {"prompt_tokens": 1, "completion_tokens": 2}]),
)


def read(feed: Callable[[ChatResponse, bytes], None], data: list[bytes], choices: list[Choice]) -> list[object]:
    """Return the deltas of a response that has begun, and the error that ended it."""
    deltas: list[object] = []
    response = ChatResponse(
        "the server",
        choices,
        lambda delta: deltas.append(msgspec.structs.asdict(delta)),
        lambda body: NodeError(f"said {body}"),
        SimpleNamespace(),
    )
    for number in range(2):
        response.event(Event(json.dumps({"choices": [{"index": number, "delta": {"content": "first"}}]})))
    try:
        for each in data:
            feed(response, each)
        response.finish()
    except SubnetError as error:
        deltas.append((type(error), error.message))
    return [*deltas, response.usage, response.done, response.finished, [choice.started for choice in choices]]


def both(data: list[bytes], **options: Any) -> tuple[list[object], list[object]]:
    """Return what is read of plain events' data, and of the same as any other events."""
    typed = read(ChatResponse.data, data, [Choice(number, **options) for number in range(2)])
    lenient = read(
        lambda response, each: response.event(Event(each.decode(errors="replace"))),
        data,
        [Choice(number, **options) for number in range(2)],
    )
    return typed, lenient


@given(st.lists(st.tuples(DELTAS, CHOICES, CHUNKS), max_size=4), st.sampled_from(["", "fi"]), st.booleans())
def test_any_chunk_means_the_same(parts: list[tuple[Any, Any, Any]], prefix: str, logprobs: bool) -> None:
    """A chunk with any members is read the same by its type and leniently."""
    data = [json.dumps({"choices": [{"delta": delta, **choice}], **more}).encode() for delta, choice, more in parts]
    typed, lenient = both(data, repeated_prefix=prefix, logprobs=logprobs)
    assert typed == lenient


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        b"",
        b"ping",
        b"{",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}',
        b'{"choices": [{"index": 2, "delta": {"content": "a"}}]}',
        b'{"choices": [{"index": -1, "delta": {"content": "a"}}]}',
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
        b'{"id": "\xff", "choices": [{"delta": {"content": "a"}}]}',
        b'{"choices": [{"delta": {"content": "\\ud83d\\ude00"}}]}',
        b'{"choices": [{"delta": {"content": "\\ud83d"}}]}',
        b'{"choices": [{"delta": {"content": ""}}]}',
        b'{"choices": [{"delta": {"content": "a", "content": "b"}}]}',
        b'{"created": NaN, "choices": [{"delta": {"content": "a"}}]}',
        b'{"choices": [{"delta": {"content": "a"}}]} x',
        b'{"choices": ' + b"[" * 100_000,
    ],
)
def test_unusual_data_means_the_same(data: bytes) -> None:
    """Data that is no chunk, is invalid or has halves of characters is read the same in both ways."""
    typed, lenient = both([data, json.dumps(chunk({"content": "last"})).encode()])
    assert typed == lenient


# Of vLLM 0.32, SGLang, Ollama, llama-server, OpenAI and Groq, as recorded in their documents and tests.
@pytest.mark.parametrize(
    "data",
    [
        {
            "choices": [
                {"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None, "token_ids": None}
            ]
        },
        {"choices": [{"index": 0, "delta": {"content": "a", "reasoning_content": None}, "matched_stop": None}]},
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": None}]},
        {"choices": [{"finish_reason": None, "index": 0, "delta": {"content": "a"}}], "system_fingerprint": "b1"},
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": None, "service_tier": None, "obfuscation": "x"},
    ],
)
def test_common_chunks_are_decoded_by_their_type(data: dict[str, Any]) -> None:
    """The chunks that the usual servers send for a piece of text need no lenient reading."""
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **data}
    assert decode_plain(json.dumps(whole).encode()).choices[0].delta.content == "a"


@pytest.mark.parametrize(
    ("delta", "tokens"),
    [
        (ChatText(0, "a"), 1),
        (ChatDelta(0, "a"), 1),
        (ChatDelta(0), 0),
        (ChatDelta(0, refusal="a"), 1),
        (ChatDelta(0, "a", logprobs=[{}, {}]), 2),
        (ChatDelta(0, "a", finish_reason="stop"), 1),
        (ChatDelta(0, choice_extra={"a": 1}), 1),
        (ChatDelta(0, response_extra={"a": 1}), 0),
    ],
)
def test_tokens_of_deltas(delta: ChatDelta, tokens: int) -> None:
    """The tokens of a delta are counted by what it has."""
    assert delta.tokens == tokens


def test_short_path_of_text() -> None:
    """Only text that is not empty is passed on as such, and not before the response has begun."""
    deltas: list[ChatDelta] = []
    response = ChatResponse("the server", [Choice(3)], deltas.append, NodeError, SimpleNamespace())
    for content in ("a", "b", "", "c"):
        response.data(json.dumps(chunk({"content": content})).encode())
    assert [type(delta) for delta in deltas] == [ChatDelta, ChatText, ChatDelta, ChatText]
    assert [(delta.choice, delta.text) for delta in deltas] == [(3, "a"), (3, "b"), (3, ""), (3, "c")]


def test_the_first_text_of_a_second_choice() -> None:
    """A choice whose first chunk is plain text, after that of another choice, has begun as well."""
    deltas: list[ChatDelta] = []
    choices = [Choice(0), Choice(1)]
    response = ChatResponse("the server", choices, deltas.append, NodeError, SimpleNamespace())
    for index in (0, 0, 1, 1):
        response.data(json.dumps({"choices": [{"index": index, "delta": {"content": "a"}}]}).encode())
    response.data(b"[DONE]")
    assert response.finish() == []
    assert [delta.choice for delta in deltas if delta.text] == [0, 0, 1, 1]
