"""Server-sent events, against the standard's own examples and against themselves, cut anywhere."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import WireError
from subnet.http.sse import Event, SseParser

LINES = st.lists(
    st.sampled_from(
        [
            "data: x",
            "data:x",
            "data:  x",
            "data",
            "data: héllo 🙂",
            "event: error",
            "event:",
            ": alive",
            ":",
            "id: 7",
            "",
            "",
            "?",
        ]
    ),
    max_size=20,
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def parse(*parts: bytes, limit: int = 1 << 20) -> list[Event]:
    parser = SseParser(limit)
    return [event for part in parts for event in parser.feed(part)] + parser.flush()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_event_is_its_data_lines_joined_whatever_ends_them(end: str) -> None:
    """LF, CRLF and CR end lines; an empty line ends an event."""
    text = end.join(["data: YHOO", "data: +2", "data: 10", "", "data: next", "", ""])
    assert parse(text.encode()) == [Event("YHOO\n+2\n10"), Event("next")]


def test_the_examples_of_the_standard() -> None:
    """WHATWG HTML, 9.2.6: comments, ids, events without data, one space after the colon."""
    assert parse(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n") == [
        Event("test stream", "", comment=True),
        Event("first event"),
        Event("second event"),
        Event(" third event"),
    ]
    assert parse(b"data\n\ndata\ndata\n\ndata:") == [Event(""), Event("\n"), Event("")]
    assert parse(b"data:test\n\ndata: test\n\n") == [Event("test"), Event("test")]
    assert parse(b"event: add\ndata: 73857293\n\nevent: remove\n\ndata: 2\n\n") == [
        Event("73857293", "add"),
        Event("2"),
    ]


def test_a_comment_is_reported_at_once() -> None:
    """It is a sign of life, also in the middle of an event, which it does not end."""
    parser = SseParser()
    assert parser.feed(b"data: a\n: alive\n") == [Event("alive", "", comment=True)]
    assert parser.feed(b"data: b\n\n") == [Event("a\nb")]


def test_a_stream_may_begin_with_a_byte_order_mark() -> None:
    """One is dropped, only at the beginning."""
    mark = "\ufeff".encode()
    assert parse(mark[:1], mark[1:], b"data: a\n\n" + mark + b"data: b\n\n") == [Event("a")]


def test_the_last_event_may_lack_its_empty_line() -> None:
    """Servers that end so mean it."""
    assert parse(b"data: [DONE]") == [Event("[DONE]")]
    assert parse(b"data: [DONE]\n") == [Event("[DONE]")]
    assert parse(b"data: [DONE]\r") == [Event("[DONE]")]
    assert parse(b"data: [DONE]\n\n") == [Event("[DONE]")]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    """As the standard's decoder has it."""
    assert parse(b"data: a\xffb\n\n") == [Event("a\ufffdb")]


@given(lines=st.lists(st.tuples(st.sampled_from(["data: é", "data", "event: x", ": c", "", ""]), ENDS)), data=st.data())
def test_events_do_not_depend_on_how_the_bytes_were_cut(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    """Also between the two bytes of a CRLF, and of a character."""
    # A CR that ends an empty line and an LF that ends the next one would be one end.
    stream = "".join(line + end for line, end in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*parts) == parse(stream) == parse(*(stream[at : at + 1] for at in range(len(stream))))


@given(lines=LINES, end=ENDS)
def test_events_are_those_of_a_reading_line_by_line(lines: list[str], end: str) -> None:
    """Against the standard's rules, spelled out for a whole text."""
    text = "".join(line + end for line in lines)
    expected: list[Event] = []
    values: list[str] = []
    name = ""
    for line in [*re.split("\r\n|\r|\n", text)[:-1], ""]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            expected += [Event("\n".join(values), name or "message")] if values else []
            values, name = [], ""
        elif not field:
            expected.append(Event(value, "", comment=True))
        elif field == "data":
            values.append(value)
        elif field == "event":
            name = value
    assert parse(text.encode()) == expected


@given(st.binary(max_size=200))
def test_any_bytes_give_events_and_no_error(noise: bytes) -> None:
    """There is nothing that a stream must not say."""
    assert all(isinstance(event, Event) for event in parse(noise, noise))


@pytest.mark.parametrize("flood", [b"data: " + b"x" * 100, b"data: x\n" * 20, b": " + b"x" * 100, b"nothing: x\n" * 20])
def test_an_event_is_bounded(flood: bytes) -> None:
    """One line, many lines, a comment, lines that say nothing: whole and byte by byte."""
    with pytest.raises(WireError):
        parse(flood + b"\n", limit=100)
    with pytest.raises(WireError):
        parse(*(bytes((byte,)) for byte in flood + b"\n"), limit=100)


def test_many_small_events_are_no_large_one() -> None:
    """Neither are comments without an end of them."""
    assert len(parse(b"data: x\n\n" * 1000, limit=100)) == 1000
    assert len(parse(b": x\n" * 1000, limit=100)) == 1000
