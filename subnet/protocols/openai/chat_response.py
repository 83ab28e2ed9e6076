"""One response with a chat or text completion, read event by event."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

import msgspec

from subnet.aio import Sink
from subnet.chat import ChatDelta, ChatText, ChatUsage
from subnet.errors import ContextLengthExceeded, InvalidRequest, NodeError, ResponseLost, SubnetError, WireError
from subnet.http.error_map import is_error
from subnet.http.lenient_json import decode, without_halves
from subnet.http.sse import Event
from subnet.protocols.openai.extra_members import MemberReader, merged_members
from subnet.protocols.openai.openai_choice import Choice
from subnet.protocols.openai.plain_chunk import decode_plain
from subnet.protocols.openai.usage_reader import UsageReader

# Keep-alives that some servers send as events instead of comments.
_KEEP_ALIVES = frozenset({"", "ping", "[ping]", "keepalive", "keep-alive", "heartbeat"})
# An error of transformers serve, which writes the message into the JSON as it is: with quotes, or cut at a line break.
_BROKEN_ERROR = re.compile(r'\{"error": "(.*?)(?:"\})?', re.DOTALL)
# Far more events without content than any answer has.
_MAX_IDLE_EVENTS = 1_000_000
# Members that the gateway makes itself, and the padding with which OpenAI hides the length of a chunk on its own
# connection; all others are passed on.
_MEMBERS = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "obfuscation"})


class Clock(Protocol):
    """Shared time of the last event from a server, by time.monotonic."""

    last_received: float


def no_watch(response: ChatResponse) -> None:
    """Do nothing after an event."""


class ChatResponse:
    """Converts the events of one response to deltas, and passes them to `emit`: an EventSink.

    `choices` are in the order of the server's indexes. `usage` is the last usage that the server reported. `done` is
    set by [DONE], `has_content` with the first content, and `finished` once every choice has its finish reason. The
    finish reasons are passed on at the end of the response, as some servers send one in every chunk, or content after
    it. Other members of a chunk are passed on with the next delta that has content: a chunk may have no choices.

    `to_error` converts an error body of the server; `peer` names the server in errors. Each event sets the time of
    `clock`. `on_event` is called after each one but pieces of text, which change none of the attributes.
    """

    __slots__ = (
        "_choices",
        "_clock",
        "_emit",
        "_extra",
        "_idle_events",
        "_members",
        "_numbers",
        "_peer",
        "_takes_text",
        "_to_error",
        "_usage_reader",
        "done",
        "finished",
        "has_content",
        "is_json",
        "on_event",
        "usage",
    )

    def __init__(
        self,
        peer: str,
        choices: Sequence[Choice],
        emit: Sink[ChatDelta],
        to_error: Callable[[Any], SubnetError],
        clock: Clock,
    ) -> None:
        self.usage: ChatUsage | None = None
        self.done = False
        self.finished = False
        self.has_content = False
        self.is_json = False
        self.on_event: Callable[[ChatResponse], None] = no_watch
        self._peer = peer
        self._choices = choices
        self._numbers = [choice.number for choice in choices]
        self._emit = emit
        self._to_error = to_error
        self._clock = clock
        self._takes_text = False
        self._idle_events = 0
        self._extra: dict[str, Any] = {}
        self._members = MemberReader(_MEMBERS)
        self._usage_reader = UsageReader()

    def event(self, event: Event) -> None:
        """Process one event. Raises NodeError, or the error that the server reported."""
        self._clock.last_received = monotonic()
        self._read(event)
        self._takes_text = self.has_content and not self._extra and all(choice.takes_text for choice in self._choices)
        self.on_event(self)

    def data(self, data: bytes) -> None:
        """Process one event with this data and no name. Raises the same errors."""
        if self._takes_text:
            try:
                raw = decode_plain(data).choices[0]
            except (msgspec.DecodeError, UnicodeError):
                return self.event(Event(data.decode(errors="replace")))
            text = raw.delta.content
            if text and 0 <= raw.index < len(self._numbers):
                self._clock.last_received = monotonic()
                emit = self._emit
                return emit(ChatText(self._numbers[raw.index], text))
        return self.event(Event(data.decode(errors="replace")))

    def _read(self, event: Event) -> None:
        if event.comment or (not event.data.startswith("{") and _is_keep_alive(event)):
            self.keep_alive()
        elif event.data.lstrip().startswith("[DONE]"):
            self.done = True
        else:
            try:
                self._chunk(event.name, self._decode(event), escaped="\\u" in event.data)
            except RecursionError as error:
                raise WireError(f"{self._peer} sent an event that is nested too deeply") from error

    def finish(self) -> list[Choice]:
        """Finish the choices at the end of the response, and return those that the server left out.

        Raises ResponseLost if the response ended too soon, and NodeError if the server sent no choice at all.
        """
        missing = [choice for choice in self._choices if not choice.started]
        if len(missing) == len(self._choices):
            error = NodeError if self.done else ResponseLost
            raise error(f"{self._peer} closed the stream without an answer")
        started = [choice for choice in self._choices if choice.started]
        if not (self.done or all(choice.finished for choice in started)):
            raise ResponseLost(f"{self._peer} closed the stream in the middle of the answer")
        for choice in started:
            delta = choice.finish()
            self._attach_extra(delta)
            self._emit(delta)
        return missing

    def _decode(self, event: Event) -> Any:
        try:
            return decode(event.data)
        except ValueError as error:
            if event.name == "error":
                return event.data
            if (broken := _BROKEN_ERROR.fullmatch(event.data)) is not None:
                return {"error": broken[1]}
            raise WireError(f"{self._peer} sent an event that is not valid JSON") from error

    def _chunk(self, name: str, chunk: Any, *, escaped: bool) -> None:
        # Gemini sends its errors in a list.
        first = chunk[0] if isinstance(chunk, list) and chunk else chunk
        if name == "error" or is_error(first):
            raise self._error(chunk)
        if chunk is None:
            chunk = {}
        if not isinstance(chunk, dict):
            raise WireError(f"{self._peer} sent an event that is not a JSON object")
        if not _MEMBERS.issuperset(chunk):
            self._add_extra(chunk, escaped=escaped)
        if (usage := self._usage_reader.read(chunk)) is not None:
            self._update_usage(usage, escaped=escaped)
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            raise WireError(f"{self._peer} sent invalid choices: expected a list")
        for raw in filter(None, choices):
            self._choice(raw, escaped=escaped)
        if not choices:
            self.keep_alive()

    def _choice(self, raw: Any, *, escaped: bool) -> None:
        # A choice without an index is the first.
        index = (raw.get("index") or 0) if isinstance(raw, dict) else None
        if isinstance(index, str) and index.isdecimal():
            index = int(index[:9])
        if not isinstance(index, int) or not 0 <= index < len(self._choices):
            raise WireError(f"{self._peer} sent a choice that was not requested")
        if raw.get("error"):
            raise self._error(raw)
        try:
            delta = self._choices[index].read(raw, escaped=escaped)
        except NodeError as error:
            raise type(error)(f"{self._peer}: {error.message}") from error
        self.finished = all(choice.finished for choice in self._choices)
        if delta is not None:
            if not delta.tokens:
                self._count_idle_event()
            if (self._extra or not self.has_content) and delta.tokens:
                self.has_content = True
                self._attach_extra(delta)
            self._emit(delta)

    def _add_extra(self, chunk: dict[str, Any], *, escaped: bool) -> None:
        if (extra := self._members.read(chunk)) is None:
            return
        extra = without_halves(extra) if escaped else extra
        self._extra = {**self._extra, **extra} if self._extra else extra

    def _attach_extra(self, delta: ChatDelta) -> None:
        if self._extra:
            delta.response_extra, self._extra = self._extra, {}

    def _update_usage(self, usage: ChatUsage, *, escaped: bool) -> None:
        """Replace the usage. Members that the new one lacks stay, as some servers report a price only once."""
        extra = merged_members(None if self.usage is None else self.usage.extra, usage.extra)
        if escaped:
            extra = without_halves(extra)
        self.usage = usage if extra is usage.extra else msgspec.structs.replace(usage, extra=extra)

    def _error(self, body: Any) -> SubnetError:
        """Return the error that the server reported in its stream.

        A server that has begun to answer has accepted the request, whatever it calls its failure.
        """
        error = self._to_error(body)
        is_refusal = isinstance(error, InvalidRequest | ContextLengthExceeded)
        if is_refusal and self.has_content:
            return NodeError(f"{self._peer} failed in the middle of the answer: {error.message}")
        return error

    def keep_alive(self) -> None:
        """Report that the request is still being worked on. Raises WireError if that never ends."""
        self._count_idle_event()
        # A finished choice must not get any further delta.
        choice = next((choice for choice in self._choices if not choice.finished), None)
        if choice is not None:
            self._emit(ChatDelta(choice.number))

    def _count_idle_event(self) -> None:
        self._idle_events += 1
        if self._idle_events > _MAX_IDLE_EVENTS:
            raise WireError(f"{self._peer} sent more than {_MAX_IDLE_EVENTS} events without content")


def _is_keep_alive(event: Event) -> bool:
    return event.name.lower() in _KEEP_ALIVES or event.data.strip().lower() in _KEEP_ALIVES
