"""Messages as the plain objects that chat templates expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from adapter.schema.messages import AssistantMessage, Message, Part, RefusalPart, ToolCall

Plain = dict[str, Any]


def plain(messages: Sequence[Message]) -> list[Plain]:
    """Only what was given, save for content, which is there always: templates tend to write out a None."""
    return [_message(message) for message in messages]


def _message(message: Message) -> Plain:
    fields: Plain = {name: value for name, value in msgspec.structs.asdict(message).items() if value is not None}
    if isinstance(message, AssistantMessage) and message.tool_calls:
        fields["tool_calls"] = [_call(call) for call in message.tool_calls]
    return {"role": message.__struct_config__.tag, **fields, "content": _content(message)}


def _content(message: Message) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.content
    if message.content is not None:
        return [_part(part) for part in message.content]
    return (message.refusal if isinstance(message, AssistantMessage) else None) or ""


def _part(part: Part) -> Plain:
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.refusal}
    found: Plain = msgspec.to_builtins(part)
    return found


def _call(call: ToolCall) -> Plain:
    return {"id": call.id, "type": call.type, "function": {"name": call.function.name, "arguments": _arguments(call)}}


def _arguments(call: ToolCall) -> object:
    """As an object where they are one: templates write it out as JSON themselves."""
    try:
        return msgspec.json.decode(call.function.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return call.function.arguments
