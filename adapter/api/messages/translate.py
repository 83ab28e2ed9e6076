"""Translates requests to those of the conversation that both lanes know."""

from __future__ import annotations

from typing import Any, NamedTuple

from adapter.api.common.formats import JsonSchema, JsonSchemaFormat, ReasoningEffort
from adapter.api.common.sampling import MAX_INT
from adapter.api.conversation import request as conversation
from adapter.api.conversation.message_types import AssistantMessage
from adapter.api.conversation.tools import FunctionDefinition, FunctionName, NamedTool
from adapter.api.conversation.tools import Tool as FunctionTool
from adapter.api.conversation.tools import ToolChoice as FunctionChoice
from adapter.api.messages.history import translate_history
from adapter.api.messages.places import Places
from adapter.api.messages.types import (
    AnyChoice,
    CountTokensRequest,
    DisabledThinking,
    EnabledThinking,
    MessagesRequest,
    NoChoice,
    OfferedTool,
    ToolChoice,
)
from adapter.generation.chat_lane import deep_bodies_refused

# Up to which budget for reasoning, in tokens, an effort is low or medium. At Anthropic, 1,024 is the least.
_LOW, _MEDIUM = 4096, 16384


class Translated(NamedTuple):
    """A translated request, and the places that its errors name.

    `prefill` is the text of the last message if the answer continues it. `has_explicit_effort`: the request turns
    reasoning on or off, which says more than how much there may be of it.
    """

    request: conversation.ChatCompletionRequest
    places: Places
    prefill: str | None = None
    has_explicit_effort: bool = False


@deep_bodies_refused()
def translate(request: CountTokensRequest) -> Translated:
    """Return what a validated request is on either lane. Raises BadRequest for a document that only Anthropic could
    fetch, and for an input of a call that is nested too deeply to be encoded again.
    """
    messages, origins = translate_history(request.system, request.messages)
    tools = [(index, tool) for index, tool in enumerate(request.tools or ()) if tool.is_custom]
    choice = request.tool_choice
    last = messages[-1]
    continues = isinstance(last, AssistantMessage)
    result = conversation.ChatCompletionRequest(
        model=request.model,
        messages=messages,
        tools=[_tool(tool) for _, tool in tools] or None,
        tool_choice=_choice(request) if tools else None,
        parallel_tool_calls=False if tools and choice is not None and choice.disable_parallel_tool_use else None,
        reasoning_effort=_effort(request),
        response_format=_format(request),
        continue_final_message=True if continues else None,
        **(_sampling(request) if isinstance(request, MessagesRequest) else {}),
    )
    return Translated(
        result,
        Places(origins, [index for index, _ in tools]),
        _text(last) if isinstance(last, AssistantMessage) else None,
        isinstance(request.thinking, EnabledThinking | DisabledThinking),
    )


def _sampling(request: MessagesRequest) -> dict[str, Any]:
    user = None if request.metadata is None else request.metadata.user_id
    return {
        "max_tokens": None if request.max_tokens is None else min(request.max_tokens, MAX_INT),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": request.stop_sequences or None,
        "stream": request.stream,
        "user": user,
    }


def _tool(tool: OfferedTool) -> FunctionTool:
    return FunctionTool(
        FunctionDefinition(
            name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict
        )
    )


def _choice(request: CountTokensRequest) -> FunctionChoice | None:
    match request.tool_choice:
        case ToolChoice(name=name):
            return NamedTool(FunctionName(name))
        case AnyChoice():
            return "required"
        case NoChoice():
            return "none"
    return None


def _effort(request: CountTokensRequest) -> ReasoningEffort | None:
    """Return how much the model is to reason; None if it decides by itself, as it does by default."""
    thinking, config = request.thinking, request.output_config
    if isinstance(thinking, DisabledThinking):
        return "none"
    if config is not None and config.effort is not None:
        return config.effort
    if isinstance(thinking, EnabledThinking):
        return "low" if thinking.budget_tokens <= _LOW else "medium" if thinking.budget_tokens <= _MEDIUM else "high"
    return None


def _format(request: CountTokensRequest) -> JsonSchemaFormat | None:
    wanted = None if request.output_config is None else request.output_config.format
    return None if wanted is None else JsonSchemaFormat(JsonSchema(name="output", schema=wanted.schema))


def _text(message: AssistantMessage) -> str:
    content = message.content or ""
    return content if isinstance(content, str) else "\n".join(str(getattr(part, "text", "")) for part in content)
