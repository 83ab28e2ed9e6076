"""Everything that a client receives of an answer, assembled from its events."""

from __future__ import annotations

from typing import Any

import msgspec


class Call(msgspec.Struct):
    """Tool call. `named` counts how often its id and its name were sent; the random id itself is not kept."""

    name: str = ""
    arguments: str = ""
    named: int = 0

    def add(self, part: dict[str, Any]) -> None:
        function = part["function"]
        self.name += function.get("name") or ""
        self.arguments += function.get("arguments") or ""
        self.named += ("id" in part) + ("name" in function)


class Choice(msgspec.Struct):
    """One choice, assembled from all its parts; `begun` counts how often its role was sent. A text completion has none,
    and counts as begun once.
    """

    text: str = ""
    reasoning: str = ""
    calls: dict[int, Call] = {}
    logprobs: list[Any] = []
    tokens: list[int] = []
    reasons: list[str] = []
    begun: int = 0

    def add(self, piece: dict[str, Any]) -> None:
        said = piece.get("delta") or piece.get("message") or {}
        self.text += said.get("content") or piece.get("text") or ""
        self.reasoning += said.get("reasoning_content") or ""
        for at, part in enumerate(said.get("tool_calls") or ()):
            self.calls.setdefault(part.get("index", at), Call()).add(part)
        self.logprobs += (piece.get("logprobs") or {}).get("content") or ()
        self.tokens += piece.get("token_ids") or ()
        self.reasons += [piece["finish_reason"]] if piece["finish_reason"] else []
        self.begun += "role" in said or ("text" in piece and not self.begun)

    @property
    def complete(self) -> bool:
        """Whether role and finish reason, and id and name of each call, were sent exactly once."""
        return (self.begun, len(self.reasons)) == (1, 1) and all(call.named == 2 for call in self.calls.values())


class Answer(msgspec.Struct, kw_only=True):
    """One answer. `events` are the data of a stream, or the JSON of a whole answer; `times` are those of the events.
    `switched` is the number of failovers that the gateway reports.
    """

    status: int
    headers: dict[str, str]
    events: list[Any] = []
    times: list[float] = []
    switched: int = 0

    @property
    def choices(self) -> dict[int, Choice]:
        """Assembled choices by index."""
        found: dict[int, Choice] = {}
        for event in self.events:
            for piece in event.get("choices", ()) if event != "[DONE]" else ():
                found.setdefault(piece["index"], Choice()).add(piece)
        return found

    @property
    def texts(self) -> list[str]:
        """Pieces of text in the order received."""
        return [text for event in self.events if (text := text_of(event))]

    @property
    def text_times(self) -> list[float]:
        """Time of each of `texts`."""
        return [at for event, at in zip(self.events, self.times, strict=True) if text_of(event)]

    @property
    def reasons(self) -> list[str]:
        return [reason for choice in self.choices.values() for reason in choice.reasons]

    @property
    def errors(self) -> list[Any]:
        return [event["error"] for event in self.events if "error" in event]

    @property
    def usages(self) -> list[Any]:
        return [event["usage"] for event in self.events if event != "[DONE]" and event.get("usage")]

    @property
    def outcome(self) -> tuple[dict[int, Choice], list[Any]]:
        """Everything that must be equal with and without a fault."""
        return self.choices, self.usages

    @property
    def complete(self) -> bool:
        """Whether the answer has ended, and is well-formed."""
        if self.status != 200 or self.errors or len(self.usages) != 1:
            return False
        if not self.choices or not all(choice.complete for choice in self.choices.values()):
            return False
        if self.events[-1] != "[DONE]":
            return len(self.events) == 1 and not self.events[0]["choices"][0].keys().isdisjoint({"message", "text"})
        chunks = self.events[:-1]
        same = {(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}
        return "[DONE]" not in chunks and len(same) == 1 and chunks[-1]["choices"] == []


def text_of(event: Any) -> str:
    """Return the text in one event, of any choice."""
    return "".join(choice.text for choice in _only(event).choices.values())


def arguments_of(event: Any) -> str:
    """Return the arguments of tool calls in one event, of any choice."""
    choices = _only(event).choices.values()
    return "".join(call.arguments for choice in choices for call in choice.calls.values())


def _only(event: Any) -> Answer:
    return Answer(status=200, headers={}, events=[event])
