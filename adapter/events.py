"""What happens in an answer, before it takes OpenAI's form."""

from __future__ import annotations

import msgspec

from adapter.schema.responses import Usage
from subnet.generation import FinishReason


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    choice: int
    text: str


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The last event of a choice."""

    choice: int
    reason: FinishReason


class Used(msgspec.Struct, frozen=True):
    """The last event of an answer. `nodes` are the names of those asked for it, in order."""

    usage: Usage
    nodes: tuple[str, ...] = ()


Event = TextDelta | Finished | Used
