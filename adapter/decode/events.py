"""What happens in an answer, before it takes OpenAI's form."""

from __future__ import annotations

from typing import Literal

import msgspec

from adapter.decode.logprobs import TokenLogprob
from adapter.decode.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """`logprobs` are those of the tokens that end in this text, where they are wanted, and `offsets` the places where
    these tokens begin in all that the choice said, in characters. `token_ids` are wanted or not, too, and have those of
    tokens that left nothing to show.
    """

    choice: int
    text: str
    logprobs: list[TokenLogprob] | None = None
    token_ids: list[int] | None = None
    offsets: list[int] | None = None


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    choice: int
    text: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """The model says that it will not answer."""

    choice: int
    text: str


class CallBegun(msgspec.Struct, frozen=True, gc=False):
    """A tool call; `index` counts those of the choice from 0."""

    choice: int
    index: int
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True, gc=False):
    """A fragment of the arguments of a call that has begun."""

    choice: int
    index: int
    text: str


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The last event of a choice."""

    choice: int
    reason: FinishReason


class Used(msgspec.Struct, frozen=True):
    """The last event of an answer. `nodes` are the names of those asked for it, in order."""

    usage: Usage
    nodes: tuple[str, ...] = ()


ChoiceEvent = TextDelta | ReasoningDelta | RefusalDelta | CallBegun | CallArguments | Finished
Event = ChoiceEvent | Used
