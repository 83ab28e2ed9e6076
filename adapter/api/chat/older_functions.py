"""OpenAI's older `functions`, which Home Assistant's and other integrations still send, in the form of `tools`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from adapter.errors import BadRequest

Body = dict[str, Any]

PARAMETERS = frozenset({"functions", "function_call"})

# Places in the newer form, and the older names of the same.
_PLACES = (
    (re.compile(r"\btools\[(\d+)\]\.function\b"), r"functions[\1]"),
    (re.compile(r"\btool_choice\.function\b"), "function_call"),
    (re.compile(r"\btool_calls\[0\]\.function\b"), "function_call"),
    (re.compile(r"\btools\b"), "functions"),
    (re.compile(r"\btool_choice\b"), "function_call"),
)


def with_tools(body: Body) -> Body:
    """Return a chat request with tools, calls and results in the place of functions; `body` itself if it has none.

    What has no newer form, and functions beside tools, are left as they are.
    """
    changes: Body = {}
    functions = body.get("functions")
    if isinstance(functions, list) and functions and not body.get("tools"):
        changes = {
            "functions": None,
            "tools": [{"type": "function", "function": function} for function in functions],
            # The older form has room for one call.
            "parallel_tool_calls": False,
            **_choice(body.get("function_call")),
        }
    messages = body.get("messages")
    if isinstance(messages, list) and any(_is_older(message) for message in messages):
        changes["messages"] = list(_messages(messages))
    return body | changes if changes else body


def name_older(error: BadRequest) -> BadRequest:
    """Return `error` with the places that the client knows."""
    param, message = error.param, error.message
    for newer, older in _PLACES:
        param, message = param and newer.sub(older, param), newer.sub(older, message)
    return BadRequest(message, param=param, code=error.code)


def _choice(given: Any) -> Body:
    if isinstance(given, dict):
        return {"function_call": None, "tool_choice": {"type": "function", "function": given}}
    return {"function_call": None, "tool_choice": given} if given in ("none", "auto") else {}


def _is_older(message: Any) -> bool:
    return isinstance(message, dict) and (message.get("role") == "function" or _has_call(message))


def _has_call(message: Body) -> bool:
    is_assistant = message.get("role") == "assistant" and not message.get("tool_calls")
    return is_assistant and isinstance(message.get("function_call"), dict)


def _messages(messages: Iterable[Any]) -> Iterator[Any]:
    """Yield messages with an id for each call: a result belongs to the call before it."""
    id_ = None
    for index, message in enumerate(messages):
        if not _is_older(message):
            yield message
        elif message["role"] == "function":
            yield {**message, "role": "tool", "tool_call_id": id_}
        else:
            id_ = f"call_function_{index}"
            call = {"id": id_, "type": "function", "function": message["function_call"]}
            yield {**message, "function_call": None, "tool_calls": [call]}
