"""Tools as text in messages, for models whose chat template does not support tools.

This is the Hermes format, which many models have seen in training: the system message has the tools as JSON, and other
messages have calls in `<tool_call>` and results in `<tool_response>`.
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

_SYSTEM_ROLES = ("system", "developer")


def add_tools_as_text(
    messages: Sequence[Message], tools: Sequence[Message], supports_system: bool
) -> Sequence[Message]:
    """Return the messages with tools, calls and results added to their text, or unchanged if there are none.

    If the template `supports_system` messages, the tools are added to the system message, else to the first user
    message. Raises TemplateError if there is no such user message.
    """
    if not tools and not any(message.get("tool_calls") or message.get("role") == "tool" for message in messages):
        return messages
    result = _calls_as_text(messages)
    if tools:
        _add_instructions(result, _INSTRUCTIONS.format(tools="\n".join(map(_json, tools))), supports_system)
    return result


def join_text_parts(content: object) -> str:
    """Return the text of a message's content, which is a string, a list of text parts, or None."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return str(content or "")


def decode_arguments(calls: Sequence[Message]) -> Sequence[Message]:
    """Return the calls with arguments that templates can iterate over: no arguments instead of a text that is no JSON
    object, as that of a call that was cut off.
    """
    if not any(map(_has_text, calls)):
        return calls
    return [{**call, "function": {**call["function"], "arguments": {}}} if _has_text(call) else call for call in calls]


def _has_text(call: Message) -> bool:
    return isinstance(call["function"]["arguments"], str)


def encode_arguments(calls: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Return the calls with their arguments encoded as JSON, for templates that do not encode them."""
    return [
        {**call, "function": {**call["function"], "arguments": _encoded_arguments(call["function"])}} for call in calls
    ]


def _add_instructions(messages: list[Message], instructions: str, supports_system: bool) -> None:
    roles = _SYSTEM_ROLES if supports_system else ("user",)
    index = next((index for index, message in enumerate(messages) if message.get("role") in roles), None)
    if index is not None:
        texts = (join_text_parts(messages[index].get("content")), instructions)
        messages[index] = {**messages[index], "content": "\n\n".join(texts if supports_system else texts[::-1])}
    elif supports_system:
        messages.insert(0, {"role": "system", "content": instructions})
    else:
        raise TemplateError("tools require at least one user message")


def _calls_as_text(messages: Iterable[Message]) -> list[Message]:
    converted: list[Message] = []
    names: dict[str, str] = {}
    after_result = False  # consecutive results are combined in one message
    for message in messages:
        if message.get("role") == "tool":
            text = _result(message, names)
            content = f"{converted.pop()['content']}\n{text}" if after_result else text
            converted.append({"role": "user", "content": content})
        else:
            calls = message.get("tool_calls") or ()
            names.update((call["id"], call["function"]["name"]) for call in calls)
            converted.append(_append_calls(message, calls) if calls else message)
        after_result = message.get("role") == "tool"
    return converted


def _append_calls(message: Message, calls: Iterable[Mapping[str, Any]]) -> Message:
    texts = [join_text_parts(message.get("content")), *(_call(call["function"]) for call in calls)]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, texts))}


def _call(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    is_empty = isinstance(arguments, str) and not arguments.strip()
    call = {"name": function["name"], "arguments": {} if is_empty else arguments}
    return f"<tool_call>\n{_json(call)}\n</tool_call>"


def _result(message: Message, names: Mapping[str, str]) -> str:
    name = names.get(message.get("tool_call_id", ""))
    result = ({"name": name} if name else {}) | {"content": join_text_parts(message.get("content"))}
    return f"<tool_response>\n{_json(result)}\n</tool_response>"


def _encoded_arguments(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        return _json(arguments)
    # Models that see an empty text write one.
    return arguments if arguments.strip() else "{}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
