"""What an answer's text consists of, in order.

`size` is how many characters of the model's text a part accounts for: over all the parts of a choice the sizes sum up
to the whole text, in its order, so that logprobs can be aligned with them. `text` may be longer or shorter than that,
as what is shown is not always what was written.
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
    """The first part of a tool call; its arguments follow. `index` counts the calls of a choice from 0."""

    index: int
    name: str
    size: int


class ToolArguments(msgspec.Struct, frozen=True, gc=False):
    """A fragment: those of one call make a JSON object together, where the model wrote a whole one."""

    index: int
    text: str
    size: int


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """Text that is never shown: the marks of a format, and white space beside them."""

    size: int


Part = Content | Reasoning | ToolCallBegin | ToolArguments | Skipped


def merge(first: Part, second: Part) -> Part | None:
    """Both as one, or None where they are not of one kind (or of one call)."""
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
