"""Checks of responses against Anthropic's types, as its client library has them."""

from __future__ import annotations

import json
from typing import Any

from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from anthropic.types.beta_error_response import BetaErrorResponse
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

ERRORS = frozenset(
    (
        *("invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large"),
        *("rate_limit_error", "timeout_error", "api_error", "overloaded_error"),
    )
)


def is_theirs(data: Any) -> bool:
    """Return whether the JSON of a response is in Anthropic's dialect."""
    return data.get("type") in ("message", "error", "model") or "has_more" in data or data.keys() == {"input_tokens"}


def check(data: Any) -> None:
    """Check the JSON of a response."""
    if data.get("type") == "error":
        _check_error(data)
    elif data.get("type") == "message":
        Message.model_validate(data, strict=True)
        assert data["stop_reason"] is not None
    elif "has_more" in data:
        for one in data["data"]:
            ModelInfo.model_validate(one)
        ids = [one["id"] for one in data["data"]]
        assert (data["first_id"], data["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    elif data.get("type") == "model":
        ModelInfo.model_validate(data)
    else:
        MessageTokensCount.model_validate(data, strict=True)


def _check_error(data: Any) -> None:
    if data["error"]["type"] != "request_too_large":  # documented, but not among the library's types
        BetaErrorResponse.model_validate(data)
    assert data.keys() == {"type", "error", "request_id"}
    assert data["error"].keys() == {"type", "message"}
    assert data["error"]["type"] in ERRORS
    assert isinstance(data["request_id"], str)


def decode_events(body: str) -> list[Any]:
    """Return the data of a stream's events without its keep-alives and comments; it may be cut off."""
    blocks = [block for block in body.split("\n\n")[:-1] if not block.startswith(":")]
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] != "ping":
            events.append(event)
    return events


def check_events(body: str) -> None:
    """Check a stream, which may be cut off: each event, and their order."""
    events = decode_events(body)
    if events and events[-1]["type"] == "error":
        _check_error(events.pop())
    open_block: str | None = None
    index, state = -1, "new"
    for event in events:
        _EVENT.validate_python(event)
        match event["type"]:
            case "message_start":
                assert state == "new"
                assert event["message"]["content"] == []
                state = "started"
            case "content_block_start":
                assert (state, open_block) == ("started", None)
                index += 1
                open_block = event["content_block"]["type"]
            case "content_block_delta":
                assert event["delta"]["type"] in _DELTAS[open_block or ""]
            case "content_block_stop":
                assert open_block is not None
                open_block = None
            case "message_delta":
                assert (state, open_block) == ("started", None)
                state = "stopping"
            case "message_stop":
                assert state == "stopping"
                state = "stopped"
        assert event.get("index", index) == index


_DELTAS = {
    "text": ("text_delta",),
    "thinking": ("thinking_delta", "signature_delta"),
    "tool_use": ("input_json_delta",),
    "": (),
}
