"""Tools for models whose chat template knows none, in the Hermes format, which many models have seen in training.

The tools stand as JSON in the system message, calls in `<tool_call>`, results in `<tool_response>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

Message = Mapping[str, Any]

_INSTRUCTIONS = """\
You may call functions to help with what the user asks. They are given as JSON within <tools></tools>:
<tools>
{tools}
</tools>

For each call, answer with a JSON object of the function's name and arguments within <tool_call></tool_call>:
<tool_call>
{{"name": <function-name>, "arguments": <arguments-object>}}
</tool_call>"""

_SYSTEM = ("system", "developer")


def written(messages: Sequence[Message], tools: Sequence[Message], knows_system: bool) -> Sequence[Message]:
    """The messages with the tools, calls and results written into their text; the same where there are none.

    `knows_system`: the template shows system messages; else the tools go to the first user's. Raises TemplateError
    where there is none of them either.
    """
    if not tools and not any(message.get("tool_calls") or message.get("role") == "tool" for message in messages):
        return messages
    said = _without_calls(messages)
    if tools:
        _introduce(said, _INSTRUCTIONS.format(tools="\n".join(map(_json, tools))), knows_system)
    return said


def joined(content: object) -> str:
    """The text of content as a string, as text parts, or as nothing."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return str(content or "")


def arguments_as_text(calls: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The calls with their arguments as JSON, for templates that do not write it themselves."""
    return [{**call, "function": {**call["function"], "arguments": _text(call["function"])}} for call in calls]


def _introduce(said: list[Message], instructions: str, knows_system: bool) -> None:
    roles = _SYSTEM if knows_system else ("user",)
    index = next((index for index, message in enumerate(said) if message.get("role") in roles), None)
    if index is not None:
        texts = (joined(said[index].get("content")), instructions)
        said[index] = {**said[index], "content": "\n\n".join(texts if knows_system else texts[::-1])}
    elif knows_system:
        said.insert(0, {"role": "system", "content": instructions})
    else:
        raise TemplateError("tools require at least one user message")


def _without_calls(messages: Iterable[Message]) -> list[Message]:
    said: list[Message] = []
    names: dict[str, str] = {}
    results = False  # whether the last message in `said` holds results: those of several calls share one
    for message in messages:
        if message.get("role") == "tool":
            text = _result(message, names)
            content = f"{said.pop()['content']}\n{text}" if results else text
            said.append({"role": "user", "content": content})
        else:
            calls = message.get("tool_calls") or ()
            names.update((call["id"], call["function"]["name"]) for call in calls)
            said.append(_spoken(message, calls) if calls else message)
        results = message.get("role") == "tool"
    return said


def _spoken(message: Message, calls: Iterable[Mapping[str, Any]]) -> Message:
    texts = [joined(message.get("content")), *(_call(call["function"]) for call in calls)]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, texts))}


def _call(function: Mapping[str, Any]) -> str:
    call = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{_json(call)}\n</tool_call>"


def _result(message: Message, names: Mapping[str, str]) -> str:
    name = names.get(message.get("tool_call_id", ""))
    result = ({"name": name} if name else {}) | {"content": joined(message.get("content"))}
    return f"<tool_response>\n{_json(result)}\n</tool_response>"


def _text(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    return arguments if isinstance(arguments, str) else _json(arguments)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
