"""Translates chat completion requests to GenerationRequests, which are independent of the API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from adapter.api.common.body_json import decode_body
from adapter.api.common.translate_sampling import grammar_param, output_format, output_options, sampling
from adapter.api.conversation.call_ids import Plain, complete_ids
from adapter.api.conversation.message_types import (
    AssistantMessage,
    AudioPart,
    EarlierCall,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
)
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.tools import AllowedToolsChoice, NamedTool, ToolChoice
from adapter.api.conversation.tools import Tool as WireTool
from adapter.generation.generation_request import GenerationRequest, Media
from adapter.prompt import Conversation
from adapter.tools.reading.offer import Offer, Tool

_NO_PARAMETERS = {"type": "object", "properties": {}}
_MODALITIES = {ImagePart: "image", AudioPart: "audio", FilePart: "file"}


def generation_request(request: ChatCompletionRequest, *, effort_is_hint: bool = False) -> GenerationRequest:
    """Return the GenerationRequest for `request`; `effort_is_hint` is as in Conversation.

    Raises BadRequest if the request sets two output formats.
    """
    logprobs = request.num_logprobs
    allowed_tools = list(_allowed_tools(request.tools or (), request.tool_choice))
    return GenerationRequest(
        model=request.model,
        conversation=_conversation(request, [tool for _, tool in allowed_tools], effort_is_hint),
        tools=_offer(request, allowed_tools),
        output_format=output_format(request),
        media=tuple(media(request.messages)),
        sampling=sampling(request, logprobs),
        output=output_options(request, logprobs),
        choices=request.n or 1,
        limit=request.limit,
        limit_param="max_tokens" if request.max_tokens else "max_completion_tokens",
        grammar_param=grammar_param(request),
        echo=bool(request.echo),
        chat_template=request.chat_template,
        key=request.routing_key,
        priority=request.priority or 0,
    )


def media(messages: Sequence[Message]) -> Iterator[Media]:
    """Yield the message parts that are not text."""
    for index, message in enumerate(messages):
        if isinstance(message.content, str) or message.content is None:
            continue
        for number, part in enumerate(message.content):
            if (modality := _MODALITIES.get(type(part))) is not None:
                place = f"messages[{index}].content[{number}].type"
                yield Media(modality, str(part.__struct_config__.tag), place)


def _conversation(request: ChatCompletionRequest, tools: Sequence[WireTool], effort_is_hint: bool) -> Conversation:
    return Conversation(
        messages=plain(request.messages),
        tools=[_tool(tool) for tool in tools],
        documents=request.documents or [],
        reasoning_effort=request.reasoning_effort,
        effort_is_hint=effort_is_hint,
        verbosity=request.verbosity,
        chat_template_kwargs=request.chat_template_kwargs or {},
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=continues_final_message(request.messages, request.continue_final_message),
    )


def _allowed_tools(tools: Sequence[WireTool], choice: ToolChoice | None) -> Iterator[tuple[int, WireTool]]:
    """Yield the tools that `choice` allows, with their indexes; the prompt does not mention any others."""
    allowed = None
    if choice == "none":
        return
    if isinstance(choice, NamedTool):
        allowed = {choice.function.name}
    elif isinstance(choice, AllowedToolsChoice):
        allowed = {tool.function.name for tool in choice.allowed_tools.tools}
    for index, tool in enumerate(tools):
        if allowed is None or tool.function.name in allowed:
            yield index, tool


def _offer(request: ChatCompletionRequest, allowed_tools: Sequence[tuple[int, WireTool]]) -> Offer:
    choice = request.tool_choice
    forced = choice == "required" or isinstance(choice, NamedTool)
    if isinstance(choice, AllowedToolsChoice):
        forced = choice.allowed_tools.mode == "required"
    tools = tuple(
        Tool(
            tool.function.name,
            tool.function.parameters,
            bool(tool.function.strict),
            f"tools[{index}].function.parameters",
        )
        for index, tool in allowed_tools
    )
    return Offer(tools, forced, request.parallel_tool_calls is not False and not isinstance(choice, NamedTool))


def continues_final_message(messages: Sequence[Message], requested: bool | None) -> bool:
    """Return whether the answer continues the last message, by a parameter of the request or by the message itself."""
    if requested is not None:
        return requested
    last = messages[-1]
    return isinstance(last, AssistantMessage) and bool(last.prefix or last.partial)


def plain(messages: Sequence[Message]) -> list[Plain]:
    """Return messages as dicts for chat templates.

    Fields that are None are omitted, as templates tend to write a None as text; `content` is always present. Calls that
    came without an id have one.
    """
    return complete_ids([_message(message) for message in messages])


def _message(message: Message) -> Plain:
    fields: Plain = {name: value for name, value in msgspec.structs.asdict(message).items() if value is not None}
    if isinstance(message, AssistantMessage):
        for name in ("prefix", "partial", "tool_calls"):
            fields.pop(name, None)
        # Templates count the calls if there is a list of them, and refuse an empty one.
        if message.tool_calls:
            fields["tool_calls"] = [_call(call) for call in message.tool_calls]
        if reasoning := message.reasoning_content or message.reasoning:
            fields["reasoning_content"] = reasoning
    return {"role": message.__struct_config__.tag, **fields, "content": _content(message)}


def _content(message: Message) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.content
    if message.content:
        return [_part(part) for part in message.content]
    return (message.refusal if isinstance(message, AssistantMessage) else None) or ""


def _tool(tool: WireTool) -> Plain:
    """Return a tool with all fields that chat templates expect; without `strict`, which is not for the model."""
    function = tool.function
    described = {} if function.description is None else {"description": function.description}
    parameters = function.parameters or _NO_PARAMETERS
    return {"type": "function", "function": {"name": function.name, **described, "parameters": parameters}}


def _part(part: Part) -> Plain:
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.refusal}
    found: Plain = msgspec.to_builtins(part)
    return found


def _call(call: EarlierCall) -> Plain:
    return {"id": call.id, "type": call.type, "function": {"name": call.function.name, "arguments": _arguments(call)}}


def _arguments(call: EarlierCall) -> object:
    """Return the arguments as a dict if they are a JSON object, as templates encode it themselves; else as text."""
    given = call.function.arguments or ""
    if isinstance(given, dict):
        return given
    try:
        return decode_body(given.encode()).value
    except (msgspec.DecodeError, RecursionError):
        return given
