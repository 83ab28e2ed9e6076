"""The reader of a body's events: the same ones as of the plain parser, however the bytes are split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import WireError
from subnet.http.event_reader import EventReader
from subnet.http.sse import Event, SseParser

BLOCKS = st.sampled_from(
    [
        b'data: {"a": 1}\n\n',
        b"data: h\xc3\xa9llo \xff\n\n",
        b"data:x\n\n",
        b"data: \n\n",
        b"data: a\rb\n\n",
        b"data: a\r\n\r\n",
        b"data: a\ndata: b\n\n",
        b"event: error\ndata: a\n\n",
        b": alive\n\n",
        b"id: 7\n\n",
        b"event: lost\n\n",
        b"\n\n",
        b"\n",
        b"data: a\n",
        b"\xef\xbb\xbfdata: marked\n\n",
    ]
)


class Sink:
    """Sink that keeps all events up to the one with the data `last`."""

    def __init__(self, last: str = "[DONE]") -> None:
        self.done = False
        self.is_json = False
        self.events: list[Event] = []
        self._last = last

    def data(self, data: bytes) -> None:
        assert b"\n" not in data
        self.event(Event(data.decode(errors="replace")))

    def event(self, event: Event) -> None:
        assert not self.done
        self.events.append(event)
        self.done = event.data == self._last


def read(*parts: bytes, check: Any = lambda value: value) -> Sink:
    sink = Sink()
    reader = EventReader("the server", sink, check)
    for part in parts:
        reader.feed(part)
    reader.end()
    return sink


@given(st.lists(BLOCKS, max_size=12), st.data())
def test_events_are_those_of_the_parser(blocks: list[bytes], data: st.DataObject) -> None:
    """Events are the same as of the parser, at once, block by block, byte by byte, or split anywhere."""
    stream = b"data: first\n\n" + b"".join(blocks)
    parser = SseParser()
    expected = parser.feed(stream) + parser.flush()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)]) if b > a]
    for split in ([stream], parts, [b"data: first\n\n", *blocks], [stream[at : at + 1] for at in range(len(stream))]):
        assert read(*split).events == expected


def test_nothing_follows_the_last_needed_event() -> None:
    """What follows the event after which the sink is done is ignored, in the same part or a later one."""
    for split in (
        [b"data: a\n\ndata: [DONE]\n\ndata: b\n\n", b"data: c\n\n"],
        [b"data: a\n\n", b"data: [DONE]\n\n: x\n\n"],
    ):
        assert [event.data for event in read(*split).events] == ["a", "[DONE]"]


@pytest.mark.parametrize("split", [[b'{"a": 1}'], [b"\xef", b"\xbb\xbf \n", b'{"a"', b": 1}\n"]])
def test_json_is_one_event(split: list[bytes]) -> None:
    """JSON instead of events is one event, after it was checked."""
    checked: list[Any] = []
    sink = read(*split, check=checked.append)
    assert (sink.is_json, [event.data.strip() for event in sink.events], checked) == (True, ['{"a": 1}'], [{"a": 1}])


@pytest.mark.parametrize("parts", [[b"<html>"], [b" \n", b"<"], [b"{", b'"a": '], [b"[1, 2"]])
def test_other_bodies_are_wire_errors(parts: list[bytes]) -> None:
    """An HTML page and truncated JSON raise WireError."""
    with pytest.raises(WireError):
        read(*parts)


def test_a_body_without_events() -> None:
    """A body that is empty, or white space only, has no events."""
    assert read().events == read(b"\n\n", b" ").events == []
