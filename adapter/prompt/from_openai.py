"""Messages as the plain objects that chat templates expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from adapter.api.chat.messages import AssistantMessage, Message, Part, RefusalPart, ToolCall
from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.chat.tools import AllowedToolsChoice, NamedTool, Tool
from adapter.prompt import Conversation

Plain = dict[str, Any]

_NO_PARAMETERS = {"type": "object", "properties": {}}


def conversation(request: ChatCompletionRequest) -> Conversation:
    """All of the request that its chat template is given."""
    return Conversation(
        messages=plain(request.messages),
        tools=[_tool(tool) for tool in offered(request)],
        documents=request.documents or [],
        reasoning_effort=request.reasoning_effort,
        verbosity=request.verbosity,
        chat_template_kwargs=request.chat_template_kwargs or {},
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=bool(request.continue_final_message),
    )


def offered(request: ChatCompletionRequest) -> list[Tool]:
    """The tools that may be called: a model that does not know of the others calls none of them."""
    choice, tools = request.tool_choice, request.tools or []
    if choice == "none":
        return []
    if isinstance(choice, NamedTool):
        return [tool for tool in tools if tool.function.name == choice.function.name]
    if isinstance(choice, AllowedToolsChoice):
        allowed = {tool.function.name for tool in choice.allowed_tools.tools}
        return [tool for tool in tools if tool.function.name in allowed]
    return tools


def plain(messages: Sequence[Message]) -> list[Plain]:
    """Only what was given, save for content, which is there always: templates tend to write out a None."""
    return [_message(message) for message in messages]


def _message(message: Message) -> Plain:
    fields: Plain = {name: value for name, value in msgspec.structs.asdict(message).items() if value is not None}
    if isinstance(message, AssistantMessage):
        if message.tool_calls:
            fields["tool_calls"] = [_call(call) for call in message.tool_calls]
        if thought := message.reasoning_content or message.reasoning:
            fields["reasoning_content"] = thought
    return {"role": message.__struct_config__.tag, **fields, "content": _content(message)}


def _content(message: Message) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.content
    if message.content is not None:
        return [_part(part) for part in message.content]
    return (message.refusal if isinstance(message, AssistantMessage) else None) or ""


def _tool(tool: Tool) -> Plain:
    """With all that templates expect to find; `strict` is not for the model."""
    function = tool.function
    described = {} if function.description is None else {"description": function.description}
    parameters = function.parameters or _NO_PARAMETERS
    return {"type": "function", "function": {"name": function.name, **described, "parameters": parameters}}


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
