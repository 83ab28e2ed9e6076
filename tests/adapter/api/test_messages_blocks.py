"""Content blocks: whatever the pieces of an answer are, a stream and a whole message say the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.common.head import Head
from adapter.api.messages.blocks import SIGNATURE
from adapter.api.messages.collect import Collector
from adapter.api.messages.stream import MessageWriter
from adapter.decode.events import (
    CallArguments,
    CallStarted,
    Event,
    Extra,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Used,
)
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from tests.checked_messages import check, check_events, decode_events

HEAD = Head(id="msg_1", created=7, model='a"/b', system_fingerprint="fp_1")
USAGE = Usage(
    prompt_tokens=7,
    completion_tokens=3,
    total_tokens=10,
    prompt_tokens_details=PromptTokensDetails(5),
    completion_tokens_details=CompletionTokensDetails(2),
)
USAGE_JSON = {
    "input_tokens": 2,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 5,
    "output_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 2},
}
CALLED = [{"type": "tool_use", "id": "toolu_0", "name": "look", "input": {"x": 1}}]


def ended(*events: Event, reason: FinishReason = "stop", stop: str | None = None) -> list[Event]:
    return [*events, Finished(0, reason, stop), Used(USAGE)]


def streamed(events: Iterable[Event], stops: Sequence[str] = ()) -> list[Any]:
    parts: list[bytes] = []
    writer = MessageWriter(HEAD, parts.append, lambda: USAGE, stops=stops)
    for event in events:
        writer.emit(event)
    body = b"".join(parts).decode()
    check_events(body)
    return decode_events(body)


def whole(events: Iterable[Event], stops: Sequence[str] = ()) -> Any:
    collector = Collector(stops)
    for event in events:
        collector.receive(event)
    message = json.loads(msgspec.json.encode(collector.build(HEAD, "max_tokens")))
    check(message)
    return message


def put_together(events: Sequence[Any]) -> Any:
    """Return the message of a stream, as a client would put it together."""
    message: dict[str, Any] = events[0]["message"]
    texts: list[str] = []
    for event in events[1:]:
        if event["type"] == "content_block_start":
            message["content"].append(event["content_block"])
            texts.append("")
        elif event["type"] == "content_block_delta":
            block, (name, value) = message["content"][-1], [*event["delta"].items()][1]
            if name == "partial_json":
                texts[-1] += value
                block["input"] = decoded(texts[-1])
            else:
                block[name] += value
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] = event["usage"]
    return message


def decoded(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def started(index: int = 0) -> CallStarted:
    return CallStarted(0, index, f"call_{index}", "look")


ARGUMENTS = '{"x": 1}'
CUT = "{"

TEXTS = st.text(min_size=1, max_size=6)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Answers of a text, reasoning and calls in any order, each in any pieces; calls may be mixed up and cut off."""
    events: list[Event] = []
    calls: list[list[str]] = []
    kinds = ["text", "reasoning", "refusal", "call", "argument"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=12)):
        if kind == "text":
            events.append(TextDelta(0, draw(TEXTS)))
        elif kind == "reasoning":
            events.append(ReasoningDelta(0, draw(TEXTS)))
        elif kind == "refusal":
            events.append(RefusalDelta(0, draw(TEXTS)))
        elif kind == "call":
            events.append(started(len(calls)))
            pieces = draw(st.lists(st.integers(1, 7), max_size=3))
            calls.append(split(draw(st.sampled_from([ARGUMENTS, CUT, '{"a": {}}'])), pieces))
        elif open_calls := [index for index, rest in enumerate(calls) if rest]:
            index = draw(st.sampled_from(open_calls))
            events.append(CallArguments(0, index, calls[index].pop(0)))
    return ended(*events, reason=draw(st.sampled_from(["stop", "length", "tool_calls"])))


def split(text: str, at: Sequence[int]) -> list[str]:
    cuts = [0, *sorted({cut for cut in at if cut < len(text)}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


@given(answers())
def test_a_stream_says_the_same_as_the_whole_message(events: list[Event]) -> None:
    """The events of a stream, put together, are the message that is not streamed; no part of the answer is lost."""
    message = whole(events)
    assert put_together(streamed(events)) == message
    for kind, name, types in (
        ("text", "text", (TextDelta, RefusalDelta)),
        ("thinking", "thinking", (ReasoningDelta,)),
    ):
        said = "".join(getattr(event, "text", "") for event in events if isinstance(event, types))
        assert "".join(block[name] for block in message["content"] if block["type"] == kind) == said
    names = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    assert len(names) == len(set(names)) == sum(isinstance(event, CallStarted) for event in events)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_any_split_of_a_text(texts: list[str]) -> None:
    """A text is one block with a delta for each piece, whatever the pieces are."""
    events = streamed(ended(*(TextDelta(0, text) for text in texts)))
    assert [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"] == texts
    assert whole(ended(TextDelta(0, "".join(texts)))) == put_together(events)


def test_the_events_of_an_answer() -> None:
    """Reasoning, text and a call are blocks one after another, and the end has the reason and the usage."""
    events = ended(
        ReasoningDelta(0, "Hm"), TextDelta(0, "Hi"), started(), CallArguments(0, 0, ARGUMENTS), reason="tool_calls"
    )
    start, *blocks, delta, stop = streamed(events)
    assert start["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": 'a"/b',
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {key: 0 if key == "output_tokens" else value for key, value in list(USAGE_JSON.items())[:4]},
    }
    assert [(event["type"].removeprefix("content_block_"), event["index"]) for event in blocks] == [
        *(("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)),
        *(("start", 1), ("delta", 1), ("stop", 1)),
        *(("start", 2), ("delta", 2), ("stop", 2)),
    ]
    assert blocks[2]["delta"] == {"type": "signature_delta", "signature": SIGNATURE}
    assert blocks[7]["content_block"] == {"type": "tool_use", "id": "toolu_0", "name": "look", "input": {}}
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": USAGE_JSON,
    }
    assert stop == {"type": "message_stop"}


@pytest.mark.parametrize(
    "events",
    [
        (started(), TextDelta(0, "\n"), CallArguments(0, 0, ARGUMENTS)),
        (started(), CallArguments(0, 0, '{"x"'), TextDelta(0, "\n"), CallArguments(0, 0, ": 1}")),
        (started(), CallArguments(0, 0, ARGUMENTS), TextDelta(0, "\n")),
    ],
    ids=["before the input", "within the input", "after the input"],
)
def test_text_beside_the_input_of_a_call(events: tuple[Event, ...]) -> None:
    """A text that a server sends before a call's input is complete is a block after the call, and loses no input."""
    message = put_together(streamed(ended(*events, reason="tool_calls")))
    assert message["content"] == [*CALLED, {"type": "text", "text": "\n"}]


def test_inputs_of_several_calls_mixed_up() -> None:
    """Calls whose inputs arrive in turns are blocks one after another."""
    inputs = [CallArguments(0, index, piece) for piece in ('{"x":', " 1}") for index in (0, 1)]
    message = put_together(streamed(ended(started(0), started(1), *inputs, reason="tool_calls")))
    assert message["content"] == [*CALLED, {**CALLED[0], "id": "toolu_1"}]


@pytest.mark.parametrize(
    ("events", "stop"),
    [
        (ended(TextDelta(0, "a")), ("end_turn", None)),
        (ended(), ("end_turn", None)),
        (ended(TextDelta(0, "a"), reason="length"), ("max_tokens", None)),
        (ended(TextDelta(0, "a"), stop="END"), ("stop_sequence", "END")),
        (ended(Extra(0, {}, {"stop_reason": "END"})), ("stop_sequence", "END")),
        (ended(Extra(0, {}, {"matched_stop": "END"})), ("stop_sequence", "END")),
        (ended(Extra(0, {}, {"stop_reason": 2})), ("end_turn", None)),
        (ended(Extra(0, {}, {"matched_stop": "other"})), ("end_turn", None)),
        (ended(started(), CallArguments(0, 0, "{}"), reason="tool_calls"), ("tool_use", None)),
        (ended(started(), CallArguments(0, 0, "{}")), ("tool_use", None)),
        (ended(started(), CallArguments(0, 0, "{"), reason="length"), ("max_tokens", None)),
        (ended(RefusalDelta(0, "No.")), ("refusal", None)),
        (ended(TextDelta(0, "a"), reason="content_filter"), ("refusal", None)),
    ],
)
def test_stop_reasons(events: list[Event], stop: tuple[str, str | None]) -> None:
    """What ended the answer, in Anthropic's words, streamed and whole."""
    for message in (whole(events, ["END"]), put_together(streamed(events, ["END"]))):
        assert (message["stop_reason"], message["stop_sequence"]) == stop
