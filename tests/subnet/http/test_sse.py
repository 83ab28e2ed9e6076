"""The parser of server-sent events, against the standard's examples, and with its input split anywhere."""

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
def test_data_lines_are_joined(end: str) -> None:
    """The data lines of an event are joined, whether LF, CRLF or CR ends them."""
    text = end.join(["data: YHOO", "data: +2", "data: 10", "", "data: next", "", ""])
    assert parse(text.encode()) == [Event("YHOO\n+2\n10"), Event("next")]


def test_examples_of_the_standard() -> None:
    """The examples in WHATWG HTML, 9.2.6, are parsed as described there."""
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


def test_comment_is_returned_at_once() -> None:
    """A comment is returned at once, also in the middle of an event, which it does not end."""
    parser = SseParser()
    assert parser.feed(b"data: a\n: alive\n") == [Event("alive", "", comment=True)]
    assert parser.feed(b"data: b\n\n") == [Event("a\nb")]


def test_byte_order_mark_is_removed() -> None:
    """A byte order mark is removed at the beginning of a stream only."""
    mark = "\ufeff".encode()
    assert parse(mark[:1], mark[1:], b"data: a\n\n" + mark + b"data: b\n\n") == [Event("a")]


def test_last_event_may_lack_its_blank_line() -> None:
    """The last event of a stream is returned even without a blank line after it."""
    assert parse(b"data: [DONE]") == [Event("[DONE]")]
    assert parse(b"data: [DONE]\n") == [Event("[DONE]")]
    assert parse(b"data: [DONE]\r") == [Event("[DONE]")]
    assert parse(b"data: [DONE]\n\n") == [Event("[DONE]")]


def test_invalid_utf8_is_replaced() -> None:
    """Invalid UTF-8 is replaced by replacement characters."""
    assert parse(b"data: a\xffb\n\n") == [Event("a\ufffdb")]


@given(lines=st.lists(st.tuples(st.sampled_from(["data: é", "data", "event: x", ": c", "", ""]), ENDS)), data=st.data())
def test_events_do_not_depend_on_the_split(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    """Events are the same however the bytes are split, also within a CRLF or a character."""
    # A CR that ends an empty line and an LF that ends the next one would be one end.
    stream = "".join(line + end for line, end in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*parts) == parse(stream) == parse(*(stream[at : at + 1] for at in range(len(stream))))


@given(lines=LINES, end=ENDS)
def test_events_match_a_reference_parser(lines: list[str], end: str) -> None:
    """Events are the same as those of a simple parser that reads the whole text by the standard's rules."""
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
def test_any_bytes_are_parsed(noise: bytes) -> None:
    """Any bytes are parsed without an error."""
    assert all(isinstance(event, Event) for event in parse(noise, noise))


@pytest.mark.parametrize("flood", [b"data: " + b"x" * 100, b"data: x\n" * 20, b": " + b"x" * 100, b"nothing: x\n" * 20])
def test_event_size_is_limited(flood: bytes) -> None:
    """An event or comment above the limit is rejected, whether it arrives at once or byte by byte."""
    with pytest.raises(WireError):
        parse(flood + b"\n", limit=100)
    with pytest.raises(WireError):
        parse(*(bytes((byte,)) for byte in flood + b"\n"), limit=100)


def test_limit_applies_to_each_event() -> None:
    """The limit applies to each event or comment, not to their total."""
    assert len(parse(b"data: x\n\n" * 1000, limit=100)) == 1000
    assert len(parse(b": x\n" * 1000, limit=100)) == 1000


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("event", ["data: abcdefghi", "data: a\ndata: b\nx", ": 4567890123456"])
def test_an_event_of_the_maximum_size(event: str, line_end: str) -> None:
    """An event or comment may have exactly as many bytes as the limit, without its line ends, however it is split."""
    size = len(event.replace("\n", ""))
    data = (event + "\n\n").replace("\n", line_end).encode()
    for cut in range(len(data)):
        assert len(parse(data[:cut], data[cut:], limit=size)) == 1
        with pytest.raises(WireError, match=f"an event of more than {size - 1} bytes"):
            parse(data[:cut], data[cut:], limit=size - 1)


def test_a_line_without_end_is_limited() -> None:
    """A line is rejected as soon as it is too long, without waiting for its end."""
    parser = SseParser(limit=100)
    assert parser.feed(b"x" * 100) == []
    with pytest.raises(WireError, match="more than 100 bytes"):
        parser.feed(b"x")


def test_lines_of_data_are_not_idle() -> None:
    """One event may have any number of lines with data, up to its maximum size."""
    assert parse(b"data: x\n" * 100_000, b"\n") == [Event("\n".join("x" * 100_000))]
