"""The messages of a conversation, told apart by their role."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

# Far beyond what conversations need: what is beyond that too would only cost time.
MOST_MESSAGES, MOST_PARTS, MOST_CALLS, LONGEST_ARGUMENTS = 4096, 1024, 1024, 2**20

_Arguments = Annotated[str, Meta(max_length=LONGEST_ARGUMENTS)]


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


_Parts = Annotated[list[TextPart], Meta(max_length=MOST_PARTS)]


class CalledFunction(Struct, frozen=True):
    """`arguments` is JSON as the model wrote it, which need not be valid."""

    name: str
    arguments: _Arguments


class ToolCall(Struct, frozen=True):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class SystemMessage(Struct, frozen=True, tag_field="role", tag="system"):
    content: str | _Parts
    name: str | None = None


class DeveloperMessage(Struct, frozen=True, tag_field="role", tag="developer"):
    content: str | _Parts
    name: str | None = None


class UserMessage(Struct, frozen=True, tag_field="role", tag="user"):
    content: str | _Parts
    name: str | None = None


class AssistantMessage(Struct, frozen=True, tag_field="role", tag="assistant"):
    content: str | Annotated[list[TextPart | RefusalPart], Meta(max_length=MOST_PARTS)] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MOST_CALLS)] | None = None


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool"):
    content: str | _Parts
    tool_call_id: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage
