"""Forms in which clients that were written for other servers send a request, put into OpenAI's.

- -1 for no maximum of new tokens: LM Studio's examples, llama.cpp.
- a schema beside the type of a `response_format`, and one without a name: llama.cpp, Together, instructor.
- messages with an empty list of parts, which OpenAI takes, too; calls whose `type` is null.
"""

from __future__ import annotations

from typing import Any

_LIMITS = ("max_tokens", "max_completion_tokens")
_DEFAULT_NAME = "response"

Body = dict[str, Any]


def to_openai(body: Body) -> Body:
    """Return a request body with what is written in another server's form in OpenAI's; `body` itself without any."""
    changes = {name: None for name in _LIMITS if body.get(name) == -1}
    for name, convert in (("response_format", _response_format), ("messages", _messages)):
        if (value := body.get(name)) is not None and (converted := convert(value)) is not value:
            changes[name] = converted
    return body | changes if changes else body


def _response_format(given: Any) -> Any:
    kind = given.get("type") if isinstance(given, dict) else None
    if kind not in ("json_object", "json_schema"):
        return given
    inner = given.get("json_schema") if kind == "json_schema" else None
    if isinstance(inner, dict) and inner.get("name") is None and isinstance(inner.get("schema"), dict):
        return {**given, "json_schema": {**inner, "name": _DEFAULT_NAME}}
    schema = given.get("schema")
    if inner is not None or not isinstance(schema, dict):
        return given
    return {"type": "json_schema", "json_schema": {"name": _DEFAULT_NAME, "schema": schema}}


def _messages(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    messages = [_message(message) if isinstance(message, dict) else message for message in given]
    return messages if any(new is not old for new, old in zip(messages, given, strict=True)) else given


def _message(message: Body) -> Body:
    changes: Body = {}
    if message.get("content") == []:
        changes["content"] = ""
    calls = message.get("tool_calls")
    if isinstance(calls, list) and any(_has_no_type(call) for call in calls):
        changes["tool_calls"] = [{**call, "type": "function"} if _has_no_type(call) else call for call in calls]
    return message | changes if changes else message


def _has_no_type(call: Any) -> bool:
    return isinstance(call, dict) and "type" in call and call["type"] is None
