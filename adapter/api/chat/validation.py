"""Validation rules for chat requests that types and ranges cannot express. All raise BadRequest."""

from __future__ import annotations

from adapter.api.chat import older_functions
from adapter.api.chat.history import check_history
from adapter.api.chat.request import ChatEnvelope
from adapter.api.common.contract import contract
from adapter.api.common.readers import OlderForm, Reader
from adapter.api.common.validation import check_sampling, check_stops_strictly, invalid_combination
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.tools import MAX_OPENAI_NAME, AllowedToolsChoice, NamedTool
from adapter.errors import BadRequest, invalid


def check_chat(request: ChatCompletionRequest) -> None:
    """Check parameters that depend on each other."""
    check_sampling(request, request.limit)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise invalid_combination(message, "max_tokens")
    if request.top_logprobs and not request.logprobs:
        raise invalid_combination(
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs"
        )
    if request.tool_choice not in (None, "none", "auto"):
        _check_tool_choice(request)


def check_strictly(request: ChatCompletionRequest) -> None:
    """Check what is served without the setting `strict` as far as the model can, but what OpenAI refuses."""
    check_history(request.messages)
    check_stops_strictly(request)
    for index, tool in enumerate(request.tools or ()):
        if (length := len(tool.function.name)) > MAX_OPENAI_NAME:
            why = f"expected a string of at most {MAX_OPENAI_NAME} characters, but got {length}"
            raise invalid(f"tools[{index}].function.name", why)
    if request.tool_choice is not None and not request.tools:
        raise _choice_without_tools()


def _check_tool_choice(request: ChatCompletionRequest) -> None:
    if not request.tools:
        raise _choice_without_tools()
    choice, known = request.tool_choice, {tool.function.name for tool in request.tools}
    if isinstance(choice, NamedTool) and choice.function.name not in known:
        raise _unknown_tool("tool_choice", choice.function.name)
    if isinstance(choice, AllowedToolsChoice):
        for index, tool in enumerate(choice.allowed_tools.tools):
            if tool.function.name not in known:
                raise _unknown_tool(f"tool_choice.allowed_tools.tools[{index}]", tool.function.name)


def _choice_without_tools() -> BadRequest:
    return invalid_combination("The 'tool_choice' parameter is only allowed when 'tools' are specified.", "tool_choice")


def _unknown_tool(place: str, name: str) -> BadRequest:
    return invalid(f"{place}.function.name", f"'{name[:64]}' is not in 'tools'")


read_envelope = Reader(ChatEnvelope)
read_request = Reader(
    ChatCompletionRequest,
    contract("chat"),
    check_chat,
    check_strictly,
    OlderForm(older_functions.PARAMETERS, older_functions.with_tools, older_functions.name_older),
)
