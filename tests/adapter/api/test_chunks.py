"""Conversion of events to the chunks of a streamed chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.chat.collect import Collector
from adapter.api.chat.stream import ChunkWriter
from adapter.api.common.access_log import Record
from adapter.api.common.dialect import OPENAI
from adapter.api.common.event_stream import event_stream
from adapter.api.common.head import Head
from adapter.decode.events import CallStarted, Event, Finished, TextDelta, Used
from adapter.decode.usage import PromptTokensDetails, Usage
from adapter.generation.base import SinkFactory
from subnet.errors import NodeLost
from tests.fakes import events_of

HEAD = Head(id="chatcmpl-1", created=7, model='a"\x00/b', system_fingerprint="fp_1")
COMMON = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 7,
    "model": 'a"\x00/b',
    "system_fingerprint": "fp_1",
}
USAGE = Usage(prompt_tokens=2, completion_tokens=3, total_tokens=5, prompt_tokens_details=PromptTokensDetails(1))
USAGE_JSON = {
    "prompt_tokens": 2,
    "completion_tokens": 3,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
ROLE = {"role": "assistant", "content": "", "refusal": None}


async def written(events: Sequence[Event | Exception], **options: Any) -> list[bytes]:
    async def run(start: SinkFactory) -> None:
        emit = start()
        for event in events:
            if isinstance(event, Exception):
                raise event
            emit(event)

    parts: list[bytes] = []
    generation = partial(run, lambda: ChunkWriter(HEAD, parts.append, **options).emit)
    await event_stream(generation, parts.append, lambda: bool(parts), lambda: b"", Record("", 0.0))
    return parts


async def streamed(events: Sequence[Event | Exception], **options: Any) -> list[Any]:
    return events_of(b"".join(await written(events, **options)))


def choice(delta: dict[str, Any], index: int = 0, reason: str | None = None) -> list[dict[str, Any]]:
    return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]


ANSWER: list[Event] = [TextDelta(0, "Hi"), TextDelta(0, '"\n\x00'), Finished(0, "stop"), Used(USAGE)]


async def test_stream() -> None:
    """A stream has a role, content, a finish reason and [DONE], and no usage unless it was requested."""
    assert await streamed(ANSWER) == [
        {**COMMON, "choices": choice(ROLE)},
        {**COMMON, "choices": choice({"content": "Hi"})},
        {**COMMON, "choices": choice({"content": '"\n\x00'})},
        {**COMMON, "choices": choice({}, reason="stop")},
        "[DONE]",
    ]


async def test_stream_with_usage() -> None:
    """With include_usage the last chunk has the usage and no choices; in all others the usage is null."""
    assert await streamed(ANSWER[1:], include_usage=True) == [
        {**COMMON, "choices": choice(ROLE), "usage": None},
        {**COMMON, "choices": choice({"content": '"\n\x00'}), "usage": None},
        {**COMMON, "choices": choice({}, reason="stop"), "usage": None},
        {**COMMON, "choices": [], "usage": USAGE_JSON},
        "[DONE]",
    ]


async def test_several_choices() -> None:
    """Every choice of a stream has its own role and finish reason, in whatever order the events arrive."""
    events: list[Event] = [
        TextDelta(1, "b"),
        TextDelta(0, "a"),
        Finished(1, "length"),
        Finished(0, "stop"),
        Used(USAGE),
    ]
    assert await streamed(events, choices=2) == [
        {**COMMON, "choices": choice(ROLE, 1)},
        {**COMMON, "choices": choice({"content": "b"}, 1)},
        {**COMMON, "choices": choice(ROLE, 0)},
        {**COMMON, "choices": choice({"content": "a"}, 0)},
        {**COMMON, "choices": choice({}, 1, "length")},
        {**COMMON, "choices": choice({}, 0, "stop")},
        "[DONE]",
    ]


async def test_error_in_a_stream() -> None:
    """An error after the first bytes is the last event of the stream, without [DONE]."""
    events = await streamed([TextDelta(0, "Hi"), NodeLost("10.0.0.7 is gone")])
    assert events[-1] == {
        "error": {
            "message": "No node could complete the request. Please try again later.",
            "type": "server_error",
            "param": None,
            "code": "node_failed",
        }
    }
    assert len(events) == 3


async def test_error_before_the_first_event() -> None:
    """An error before the first event is raised, so that the response can still have an error status."""
    with pytest.raises(NodeLost):
        await streamed([NodeLost("gone")])


async def test_one_write_per_event() -> None:
    """Role and first content are written together; every later event is one write."""
    items = await written(ANSWER)
    assert len(items) == len(ANSWER)
    role, first = events_of(items[0])
    assert (role["choices"], first["choices"]) == (choice(ROLE), choice({"content": "Hi"}))
    assert items[-1] == OPENAI.end


def test_collect() -> None:
    """Without streaming, the same events are collected into one chat.completion object."""
    collector = Collector()
    for event in ANSWER:
        collector.receive(event)
    assert msgspec.to_builtins(collector.build(HEAD)) == {
        **COMMON,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": 'Hi"\n\x00', "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE_JSON,
    }


def test_ids_differ() -> None:
    """Each chat completion has its own id."""
    first, second = Head.new("m", "fp"), Head.new("m", "fp")
    assert first.id != second.id
    assert first.id.startswith("chatcmpl-")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_any_text_is_unchanged(text: str, include_usage: bool) -> None:
    """The fast path for text chunks gives one event with the unchanged text, whatever characters it has."""
    parts: list[bytes] = []
    writer = ChunkWriter(HEAD, parts.append, include_usage=include_usage)
    writer.emit(TextDelta(0, "first"))
    writer.emit(TextDelta(0, text))
    data = parts[-1]
    assert data.count(b"\n") == 2
    (event,) = events_of(data)
    assert isinstance(event, dict)
    assert event["choices"] == choice({"content": text})


def test_prompt_token_ids_and_nodes_are_sent_once() -> None:
    """Only the first chunk has the prompt's token ids; a comment names the nodes if there were several."""
    writer = ChunkWriter(HEAD, print, choices=2, prompt_token_ids=[1, 2])
    chunks = events_of(b"".join(writer.encode(TextDelta(index, "x")) for index in (0, 1, 0)))
    assert [chunk.get("prompt_token_ids") for chunk in chunks] == [[1, 2], None, None, None, None]
    assert writer.encode(Used(USAGE, ("a",))) == b""
    assert writer.encode(Used(USAGE, ("a", "b"))) == b": nodes a, b\n\n"


def test_continuous_usage() -> None:
    """Every chunk has the usage so far if it is requested; a choice that starts with a tool call has null content."""
    writer = ChunkWriter(HEAD, print, include_usage=True, usage=lambda: USAGE)
    begun = CallStarted(0, 0, "call_1", "add")
    chunks = events_of(writer.encode(begun) + writer.encode(TextDelta(0, "x")))
    assert [chunk["usage"] for chunk in chunks] == [USAGE_JSON] * 3
    assert chunks[0]["choices"][0]["delta"]["content"] is None
