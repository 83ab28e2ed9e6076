"""Validation rules that types and ranges cannot express. All raise BadRequest."""

from __future__ import annotations

from adapter.api.common.contract import contract
from adapter.api.common.readers import Reader
from adapter.api.common.validation import invalid_combination
from adapter.api.messages.content_types import ToolUseBlock
from adapter.api.messages.types import AnyChoice, AssistantTurn, CountTokensRequest, MessagesRequest, ToolChoice
from adapter.errors import BadRequest, invalid


def check_message(request: CountTokensRequest) -> None:
    """Check parameters that depend on each other, and that the conversation can be answered."""
    for index, tool in enumerate(request.tools or ()):
        if tool.is_custom and tool.input_schema is None:
            place = f"tools[{index}].input_schema"
            raise BadRequest(f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter")
    _check_choice(request)
    last = request.messages[-1]
    if isinstance(last, AssistantTurn) and not isinstance(last.content, str):
        for number, block in enumerate(last.content):
            if isinstance(block, ToolUseBlock):
                why = "expected a 'tool_result' block with this 'tool_use_id' in a message after it"
                raise invalid(f"messages[{len(request.messages) - 1}].content[{number}].id", why)


def _check_choice(request: CountTokensRequest) -> None:
    choice = request.tool_choice
    if not isinstance(choice, AnyChoice | ToolChoice):
        return
    known = {tool.name for tool in request.tools or () if tool.is_custom}
    if not known:
        raise invalid_combination(
            "The 'tool_choice' parameter is only allowed when 'tools' are specified.", "tool_choice"
        )
    if isinstance(choice, ToolChoice) and choice.name not in known:
        raise invalid("tool_choice.name", f"'{choice.name[:64]}' is not in 'tools', or a tool that only Anthropic has")


_contract = contract("messages")
read_messages = Reader(MessagesRequest, _contract, check_message)
# Clients count what they are about to send, with all of its parameters.
read_count_tokens: Reader[CountTokensRequest] = Reader(CountTokensRequest, _contract, check_message)
