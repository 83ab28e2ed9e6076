"""The JSON body of a chat completion, for servers of the chat lane."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from adapter.api.conversation.request import ChatCompletionRequest


def chat_body(request: ChatCompletionRequest) -> dict[str, Any]:
    """Return the JSON object of a chat completion request; fields that are None are absent, as in a client's."""
    body = _plain(request)
    assert isinstance(body, dict)
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, Struct):
        return value
    config = value.__struct_config__
    tag = {} if config.tag_field is None else {config.tag_field: config.tag}
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return {**tag, **{name: _plain(member) for name, member in fields.items() if member is not None}}
