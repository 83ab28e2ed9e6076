"""Events of an answer, independent of the API in which it is reported."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from adapter.decode.token_logprobs import TokenLogprob
from adapter.decode.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Piece of a choice's content.

    `logprobs`, if requested, has an entry for each token that ends in this text. `offsets` has the position of each of
    these tokens in the text of the choice, in characters. `token_ids`, if requested, includes tokens without text.
    """

    choice: int
    text: str
    logprobs: list[TokenLogprob] | None = None
    token_ids: list[int] | None = None
    offsets: list[int] | None = None


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """Piece of a choice's reasoning."""

    choice: int
    text: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """Piece of the text with which the model refuses to answer."""

    choice: int
    text: str


class CallStarted(msgspec.Struct, frozen=True, gc=False):
    """Start of a tool call. `index` numbers the calls of a choice from 0.

    `extra` are members of a server's call that are passed on as they are; those of its function are in
    `extra["function"]`.
    """

    choice: int
    index: int
    id: str
    name: str
    extra: dict[str, Any] | None = None


class CallArguments(msgspec.Struct, frozen=True, gc=False):
    """Piece of the arguments of a tool call that has started: those of a call form one JSON object."""

    choice: int
    index: int
    text: str


class CallExtra(msgspec.Struct, frozen=True):
    """Members of a server's tool call, like those of CallStarted, that arrived after its start."""

    choice: int
    index: int
    extra: dict[str, Any]


class Extra(msgspec.Struct, frozen=True):
    """Members of a server's message, and of its choice, that are passed on as they are."""

    choice: int
    message: dict[str, Any]
    fields: dict[str, Any]


class ResponseExtra(msgspec.Struct, frozen=True):
    """Members of a server's response, or of a chunk of it, that are passed on as they are.

    They are those of the next event, which always follows, and is one of the same choice.
    """

    choice: int
    fields: dict[str, Any]


class Finished(msgspec.Struct, frozen=True, gc=False):
    """Last event of a choice. `stop` is the stop string that ended it, if one did and it is known."""

    choice: int
    reason: FinishReason
    stop: str | None = None


class Used(msgspec.Struct, frozen=True):
    """Last event of an answer. `nodes` has the names of the nodes that ran it, in order. `replayed` is the number of
    tokens that nodes generated again to resume it, and that `usage` does not include. `continued_by` is the model that
    continued the words of another one, if any. `diverged`: a node did not repeat its beginning, and continued it.
    `extra` are members of a server's usage that are passed on as they are.
    """

    usage: Usage
    nodes: tuple[str, ...] = ()
    replayed: int = 0
    continued_by: str = ""
    diverged: bool = False
    extra: dict[str, Any] | None = None


OtherMembers = CallExtra | Extra | ResponseExtra
ChoiceEvent = TextDelta | ReasoningDelta | RefusalDelta | CallStarted | CallArguments | OtherMembers | Finished
Event = ChoiceEvent | Used
