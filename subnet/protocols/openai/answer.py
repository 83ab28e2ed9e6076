"""One response of a server, event by event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from subnet.chat import ChatDelta, ChatUsage, EmitChat
from subnet.errors import NodeError, NodeLost, SubnetError, WireError
from subnet.http.error_map import has_error
from subnet.http.sse import Event
from subnet.protocols.openai.choice import Choice
from subnet.protocols.openai.usage import read_usage

# What servers send to keep a connection busy, instead of a comment.
_ALIVE = frozenset({"", "ping", "[ping]", "keepalive", "keep-alive", "heartbeat"})


class Answer:
    """Gives `emit` what `choices` get, in the order in which the server counts them. `usage` is the last that it told,
    `done` that it said so, `finished` that each choice had its end.

    `refused` makes an error of what a server says of its own; `peer` is what errors call it.
    """

    def __init__(
        self, peer: str, choices: Sequence[Choice], emit: EmitChat, refused: Callable[[Any], SubnetError]
    ) -> None:
        self.usage: ChatUsage | None = None
        self.done = False
        self.finished = False
        self._peer = peer
        self._choices = choices
        self._emit = emit
        self._refused = refused

    def take(self, event: Event) -> None:
        """Raises NodeError, or what the server's error is."""
        if event.comment or (not event.data.startswith("{") and _is_alive(event)):
            self._live()
        elif event.data.lstrip().startswith("[DONE]"):
            self.done = True
        else:
            self._chunk(event.name, self._decoded(event))

    def end(self) -> list[Choice]:
        """At the end of the response: the choices that the server left out, if it made others. Raises NodeLost where
        that end came too soon.
        """
        missing = [choice for choice in self._choices if not choice.seen]
        if len(missing) == len(self._choices):
            lost = NodeError if self.done else NodeLost
            raise lost(f"{self._peer} closed the stream without an answer")
        for choice in self._choices:
            if choice.seen and not choice.finished:
                if not self.done:
                    raise NodeLost(f"{self._peer} closed the stream in the middle of the answer")
                self._emit(choice.end())
        return missing

    def _decoded(self, event: Event) -> Any:
        try:
            return msgspec.json.decode(event.data.encode())
        except (msgspec.DecodeError, RecursionError) as error:
            if event.name == "error":
                return event.data
            raise WireError(f"{self._peer} sent an event that is not valid JSON") from error

    def _chunk(self, name: str, chunk: Any) -> None:
        # Gemini sends its errors in a list.
        first = chunk[0] if isinstance(chunk, list) and chunk else chunk
        if name == "error" or has_error(first):
            raise self._refused(chunk)
        if not isinstance(chunk, dict):
            raise WireError(f"{self._peer} sent an event that is not a JSON object")
        self.usage = read_usage(chunk) or self.usage
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            raise WireError(f"{self._peer} sent invalid choices: expected a list")
        for raw in choices:
            self._choice(raw)
        if not choices:
            self._live()

    def _choice(self, raw: Any) -> None:
        # Without an index it is the first.
        index = (raw.get("index") or 0) if isinstance(raw, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(self._choices):
            raise WireError(f"{self._peer} sent a choice that was not requested")
        if raw.get("error"):
            raise self._refused(raw)
        try:
            delta = self._choices[index].read(raw)
        except NodeError as error:
            raise type(error)(f"{self._peer}: {error.message}") from error
        if delta is not None:
            if delta.finish_reason is not None:
                self.finished = all(choice.finished for choice in self._choices)
            self._emit(delta)

    def _live(self) -> None:
        """A sign of life is one of a choice that lives."""
        choice = next((choice for choice in self._choices if not choice.finished), None)
        if choice is not None:
            self._emit(ChatDelta(choice.number))


def _is_alive(event: Event) -> bool:
    return event.name.lower() in _ALIVE or event.data.strip().lower() in _ALIVE
