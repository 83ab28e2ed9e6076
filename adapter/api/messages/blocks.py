"""Orders the events of an answer as content blocks, of which only one is open at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from adapter.api.messages.response import (
    BlockDelta,
    BlockEvent,
    BlockStart,
    BlockStop,
    InputPiece,
    SignaturePiece,
    Stop,
    StopReason,
    Text,
    TextPiece,
    Thinking,
    ThinkingPiece,
    ToolUse,
)
from adapter.decode.events import (
    CallArguments,
    CallStarted,
    Event,
    Extra,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)

SIGNATURE = "unsigned"
"""Signature of reasoning. Clients expect one and send it back; here it proves nothing, and is not checked."""

# Choice members in which vLLM and SGLang name what ended an answer.
_STOP_FIELDS = ("stop_reason", "matched_stop")

_TEXT, _THINKING = -1, -2
_Content = TextDelta | RefusalDelta | ReasoningDelta | CallStarted | CallArguments


class Blocks:
    """Turns the events of an answer into those of its content blocks, and remembers why it ended.

    Servers may send parts of a call after another call, or a text, has begun. What has begun then waits for the end of
    the answer, if the input of the open call is not complete. `stops` are the stop sequences of the request.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.open_text: int | None = None
        """Index of the open block if it is a text, which the next text continues."""
        self._index = -1
        self._open: int | None = None
        self._arguments: list[str] = []
        self._waiting: list[_Content] = []
        self._stops = stops
        self._matched: str | None = None
        self._finished: Finished | None = None
        self._has_calls = self._has_refused = False

    def receive(self, event: Event) -> Iterator[BlockEvent]:
        """Yield the events that follow from `event`."""
        match event:
            case TextDelta() | RefusalDelta() | ReasoningDelta() | CallStarted() | CallArguments():
                yield from self._receive(event)
            case Extra():
                self._matched = next(
                    (event.fields[name] for name in _STOP_FIELDS if name in event.fields), self._matched
                )
            case Finished():
                self._finished = event
                yield from self._finish()

    def _receive(self, event: _Content) -> Iterator[BlockEvent]:
        self._has_calls = self._has_calls or isinstance(event, CallStarted)
        self._has_refused = self._has_refused or isinstance(event, RefusalDelta)
        place = _place(event)
        if place != self._open and (self._waiting or self._is_incomplete()):
            self._waiting.append(event)
            return
        yield from self._write(event, place)

    def _is_incomplete(self) -> bool:
        """Return whether more of the open call's input may come."""
        return self._open is not None and self._open >= 0 and _parsed("".join(self._arguments)) is None

    def _write(self, event: _Content, place: int) -> Iterator[BlockEvent]:
        if isinstance(event, CallStarted):
            yield from self._start(place, ToolUse(f"toolu_{event.id.removeprefix('call_')}", event.name))
            return
        if not event.text:
            return
        if isinstance(event, CallArguments):
            self._arguments.append(event.text)
            yield BlockDelta(self._index, InputPiece(event.text))
            return
        if place != self._open:
            yield from self._start(place, Text() if place == _TEXT else Thinking())
        yield BlockDelta(self._index, TextPiece(event.text) if place == _TEXT else ThinkingPiece(event.text))

    def _start(self, place: int, block: Text | Thinking | ToolUse) -> Iterator[BlockEvent]:
        yield from self._close()
        self._index += 1
        self._open = place
        self.open_text = self._index if place == _TEXT else None
        self._arguments = []
        yield BlockStart(self._index, block)

    def _close(self) -> Iterator[BlockEvent]:
        if self._open is None:
            return
        if self._open == _THINKING:
            yield BlockDelta(self._index, SignaturePiece(SIGNATURE))
        self._open = self.open_text = None
        yield BlockStop(self._index)

    def _finish(self) -> Iterator[BlockEvent]:
        """Close the open block, then write what waits: the parts of a block together, in the order of the blocks."""
        waiting: dict[int, list[_Content]] = {}
        for event in self._waiting:
            waiting.setdefault(_place(event), []).append(event)
        self._waiting = []
        for place, events in waiting.items():
            for event in events:
                yield from self._write(event, place)
        yield from self._close()

    def stop(self, limit_reason: StopReason) -> Stop:
        """Return why the answer ended; to be called after its end. `limit_reason` is that of its maximum length."""
        event = self._finished
        assert event is not None
        matched = event.stop or (self._matched if self._matched in self._stops else None)
        if self._has_refused or event.reason == "content_filter":
            return Stop("refusal")
        if event.reason == "length":
            return Stop(limit_reason)
        # Some servers end calls with the reason "stop".
        if self._has_calls:
            return Stop("tool_use")
        return Stop("end_turn") if matched is None else Stop("stop_sequence", matched)


def parsed_input(text: str) -> dict[str, object]:
    """Return the input of a call; empty if its text is no JSON object, as that of a call that was cut off."""
    return _parsed(text) or {}


def _parsed(text: str) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _place(event: _Content) -> int:
    """Return what an event is a part of: the number of a call, the text, or the reasoning."""
    match event:
        case CallStarted(index=index) | CallArguments(index=index):
            return index
        case ReasoningDelta():
            return _THINKING
    return _TEXT
