"""Rules for the order of messages and for their contents that OpenAI enforces, and that models can do without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapter.api.conversation.message_types import AssistantMessage, Message, ToolMessage
from adapter.errors import BadRequest

# Of the ids of calls in an error, in characters.
_MAX_IDS = 256


def check_history(messages: Sequence[Message]) -> None:
    """Check that each tool message answers a call of the assistant's message before it, that all calls have an id and
    arguments as text, and are answered, and that no message of the assistant or of a tool is without content. Raises
    BadRequest.
    """
    calls: frozenset[str] = frozenset()
    unanswered: dict[str, None] = {}
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if not message.content and message.content != "":
                raise _no_content(index)
            if not message.tool_call_id:
                raise _no_id(f"messages[{index}].tool_call_id")
            if message.tool_call_id not in calls:
                raise _orphan(index, has_calls=bool(calls))
            unanswered.pop(message.tool_call_id, None)
            continue
        if unanswered:
            raise _unanswered(index - 1, unanswered)
        calls = frozenset()
        if isinstance(message, AssistantMessage):
            _check_content(message, index)
            _check_arguments(message, index)
            unanswered = dict.fromkeys(_ids(message, index))
            calls = frozenset(unanswered)
    if unanswered:
        raise _unanswered(len(messages) - 1, unanswered)


def _ids(message: AssistantMessage, index: int) -> Iterator[str]:
    for number, call in enumerate(message.tool_calls or ()):
        if not call.id:
            raise _no_id(f"messages[{index}].tool_calls[{number}].id")
        yield call.id


def _check_content(message: AssistantMessage, index: int) -> None:
    is_empty = message.content is None or message.content == []
    has_other = message.tool_calls or message.refusal is not None or message.reasoning_content or message.reasoning
    if is_empty and not has_other:
        raise _no_content(index)


def _check_arguments(message: AssistantMessage, index: int) -> None:
    for number, call in enumerate(message.tool_calls or ()):
        if not isinstance(call.function.arguments, str):
            place = f"messages[{index}].tool_calls[{number}].function.arguments"
            raise BadRequest(f"Invalid type for '{place}': expected a string.", param=place, code="invalid_type")


def _no_id(place: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter")


def _no_content(index: int) -> BadRequest:
    place = f"messages[{index}].content"
    message = f"Invalid type for '{place}': expected a string or an array with at least one part."
    return BadRequest(message, param=place, code="invalid_type")


def _orphan(index: int, *, has_calls: bool) -> BadRequest:
    if has_calls:
        place, why = f"messages[{index}].tool_call_id", "'tool_call_id' of no call in the preceding message"
        return BadRequest(f"Invalid parameter: {why} with 'tool_calls'.", param=place, code="invalid_value")
    message = (
        "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
    )
    return BadRequest(message, param=f"messages[{index}].role", code="invalid_value")


def _unanswered(index: int, ids: dict[str, None]) -> BadRequest:
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
        f" The following tool_call_ids did not have response messages: {', '.join(ids)[:_MAX_IDS]}"
    )
    return BadRequest(message, param=f"messages[{index}].role", code="invalid_value")
