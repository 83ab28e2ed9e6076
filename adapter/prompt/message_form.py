"""The form in which a chat template expects messages."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any, Literal

import msgspec

from adapter.prompt.tools_as_text import decode_arguments, encode_arguments, join_text_parts

Message = Mapping[str, Any]

Ids = Literal["any", "naming", "short"]

ReasoningField = Literal["reasoning_content", "reasoning", "thinking", "part"]
"""Where a message has its reasoning: in a field of this name, or in a part of its content of the type `thinking`."""

REASONING_FIELDS: tuple[ReasoningField, ...] = ("reasoning_content", "thinking", "reasoning", "part")


class MessageForm(msgspec.Struct, frozen=True, kw_only=True):
    """Form in which a template expects messages.

    `developer`: it knows the role of that name. `lists`: the roles whose content must be a list of parts, and
    `several`: those whose content may be one if there are several parts. `encoded`: arguments of calls are JSON text
    instead of objects. `ids`: the id of a call has its function's name, as in `functions.look:0` (`naming`), or nine
    letters and digits (`short`). `single_calls`: a message has at most one call. `filled`: a message of the assistant
    without calls has some text. `joined`: a message with calls has either reasoning or a text.
    """

    developer: bool = True
    lists: frozenset[str] = frozenset()
    several: frozenset[str] = frozenset()
    encoded: bool = False
    ids: Ids = "any"
    single_calls: bool = False
    filled: bool = False
    joined: bool = False
    reasoning: ReasoningField = "reasoning_content"

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages in this form. They are not modified."""
        if self.single_calls and any(len(message.get("tool_calls") or ()) > 1 for message in messages):
            messages = list(_one_by_one(messages))
        named = messages if self.ids == "any" else _with_own_ids(messages, self.ids)
        return [self._adapt(message) for message in named]

    def _adapt(self, message: Message) -> Message:
        if self.joined and message.get("tool_calls") and message.get("reasoning_content") and message.get("content"):
            text = join_text_parts(message["content"])
            message = {**message, "reasoning_content": f"{message['reasoning_content']}\n\n{text}", "content": ""}
        role = "system" if message["role"] == "developer" and not self.developer else message["role"]
        changes: dict[str, Any] = {"content": self._content(role, message.get("content")), "role": role}
        if message.get("tool_calls"):
            convert = encode_arguments if self.encoded else decode_arguments
            changes["tool_calls"] = convert(message["tool_calls"])
        elif self.filled and role == "assistant" and not changes["content"]:
            changes["content"] = " "
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


_CALLING: Message = {"role": "assistant", "content": ""}


def _text_part(text: object) -> dict[str, object]:
    return {"type": "text", "text": text}


def _one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the messages with one call in each: every call is followed by its result, and the text is before the first.

    Results of calls with the same id are in the order of the calls. Results whose calls are not in the message before
    them stay where they are.
    """
    at = 0
    while at < len(messages):
        message, at = messages[at], at + 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            yield message
            continue
        start = at
        while at < len(messages) and messages[at]["role"] == "tool":
            at += 1
        results: dict[object, deque[Message]] = defaultdict(deque)
        for result in messages[start:at]:
            results[result.get("tool_call_id")].append(result)
        for number, call in enumerate(calls):
            yield {**message, "tool_calls": [call]} if number == 0 else {**_CALLING, "tool_calls": [call]}
            if own := results[call["id"]]:
                yield own.popleft()
        yield from chain.from_iterable(results.values())


def _with_own_ids(messages: Sequence[Message], kind: Ids) -> list[Message]:
    """Return the messages with ids of calls, and of their results, of this kind. No two calls have the same id then:
    results of calls that had are in the order of the calls.
    """
    numbers, ids = count(), dict[str, deque[str]]()
    result: list[Message] = []
    for message in messages:
        calls, new = [], defaultdict[str, deque[str]](deque)
        for call in message.get("tool_calls") or ():
            number = next(numbers)
            own = f"call{number:05}" if kind == "short" else f"functions.{call['function']['name']}:{number}"
            new[call["id"]].append(own)
            calls.append({**call, "id": own})
        ids.update(new)
        changes: dict[str, Any] = {"tool_calls": calls} if calls else {}
        if kind == "short" and message.get("tool_call_id", "") not in ids and "tool_call_id" in message:
            ids[message["tool_call_id"]] = deque([f"call{next(numbers):05}"])
        if found := ids.get(message.get("tool_call_id", "")):
            changes["tool_call_id"] = found.popleft() if len(found) > 1 else found[0]
        result.append({**message, **changes})
    return result
