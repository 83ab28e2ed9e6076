"""The form in which a chat template expects messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Literal

import msgspec

from adapter.prompt.tools_as_text import decode_arguments, encode_arguments, join_text_parts

Message = Mapping[str, Any]

ReasoningField = Literal["reasoning_content", "reasoning", "thinking", "part"]
"""Where a message has its reasoning: in a field of this name, or in a part of its content of the type `thinking`."""

REASONING_FIELDS: tuple[ReasoningField, ...] = ("reasoning_content", "thinking", "reasoning", "part")


class MessageForm(msgspec.Struct, frozen=True, kw_only=True):
    """Form in which a template expects messages.

    `developer`: it knows the role of that name. `lists`: the roles whose content must be a list of parts, and
    `several`: those whose content may be one if there are several parts. `encoded`: arguments of calls are JSON text
    instead of objects. `naming_ids`: the id of a call has its function's name, as in `functions.look:0`.
    """

    developer: bool = True
    lists: frozenset[str] = frozenset()
    several: frozenset[str] = frozenset()
    encoded: bool = False
    naming_ids: bool = False
    reasoning: ReasoningField = "reasoning_content"

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages in this form. They are not modified."""
        named = _with_naming_ids(messages) if self.naming_ids else messages
        return [self._adapt(message) for message in named]

    def _adapt(self, message: Message) -> Message:
        role = "system" if message["role"] == "developer" and not self.developer else message["role"]
        changes: dict[str, Any] = {"content": self._content(role, message.get("content")), "role": role}
        if message.get("tool_calls"):
            convert = encode_arguments if self.encoded else decode_arguments
            changes["tool_calls"] = convert(message["tool_calls"])
        if self.reasoning != "reasoning_content" and message.get("reasoning_content"):
            return self._with_reasoning({**message, **changes})
        return {**message, **changes} if any(message.get(key) is not changes[key] for key in changes) else message

    def _content(self, role: str, content: object) -> object:
        if isinstance(content, str):
            return [_text_part(content)] if role in self.lists else content
        if not isinstance(content, list) or not all(isinstance(part, dict) and "text" in part for part in content):
            return content
        if role in self.lists or (role in self.several and len(content) > 1):
            return content
        return join_text_parts(content)

    def _with_reasoning(self, message: Message) -> Message:
        rest = {key: value for key, value in message.items() if key != "reasoning_content"}
        reasoning, content = message["reasoning_content"], message.get("content")
        if self.reasoning != "part":
            return {**rest, self.reasoning: reasoning}
        parts = content if isinstance(content, list) else [_text_part(content)] if content else []
        return {**rest, "content": [{"type": "thinking", "thinking": reasoning}, *parts]}


def _text_part(text: object) -> dict[str, object]:
    return {"type": "text", "text": text}


def _with_naming_ids(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the ids of calls, and those of their results, that name the functions."""
    numbers, ids = count(), dict[str, str]()
    result: list[Message] = []
    for message in messages:
        calls = []
        for call in message.get("tool_calls") or ():
            ids[call["id"]] = own = f"functions.{call['function']['name']}:{next(numbers)}"
            calls.append({**call, "id": own})
        changes: dict[str, Any] = {"tool_calls": calls} if calls else {}
        if message.get("tool_call_id", "") in ids:
            changes["tool_call_id"] = ids[message["tool_call_id"]]
        result.append({**message, **changes})
    return result
