"""Parts of an answer's text, in order.

`size` is the number of characters of the model's text that a part accounts for. The sizes of all parts of a choice add
up to the length of its text, so that logprobs can be aligned with parts. `text` may be longer or shorter: JSON strings
are escaped, for example.
"""

from __future__ import annotations

import msgspec


class Content(msgspec.Struct, frozen=True, gc=False):
    text: str
    size: int


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    text: str
    size: int


class ToolCallBegin(msgspec.Struct, frozen=True, gc=False):
    """Start of a tool call, followed by its arguments. `index` numbers the calls of a choice from 0."""

    index: int
    name: str
    size: int


class ToolArguments(msgspec.Struct, frozen=True, gc=False):
    """Piece of a call's arguments. Together they are a JSON object, if the model completed the call."""

    index: int
    text: str
    size: int


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """Text that is not part of the answer: marks of a format, and white space next to them."""

    size: int

    @classmethod
    def of(cls, text: str, size: int) -> Skipped:
        return cls(size)


Part = Content | Reasoning | ToolCallBegin | ToolArguments | Skipped


def merge(first: Part, second: Part) -> Part | None:
    """Return both parts as one, or None if they differ in type or call."""
    match first, second:
        case Skipped(), Skipped():
            return Skipped(first.size + second.size)
        case Content(), Content():
            return Content(first.text + second.text, first.size + second.size)
        case Reasoning(), Reasoning():
            return Reasoning(first.text + second.text, first.size + second.size)
        case ToolArguments(), ToolArguments() if first.index == second.index:
            return ToolArguments(first.index, first.text + second.text, first.size + second.size)
        case _:
            return None
