"""Chunks that have a piece of text and nothing else, which nearly all are, decoded by their type.

Everything else about a chunk has a lenient reading, in chat_response.py. A chunk that this type accepts means the same
there; one that it does not accept is read there.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Delta(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    content: str
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None


class _Choice(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    delta: _Delta
    index: int = 0
    finish_reason: None = None
    logprobs: None = None
    # vLLM; SGLang; OpenRouter.
    stop_reason: None = None
    token_ids: None = None
    matched_stop: None = None
    native_finish_reason: None = None


class PlainChunk(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A chunk with one choice, whose only content is `choices[0].delta.content`."""

    choices: tuple[_Choice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    id: str | None = None
    created: int | None = None
    model: str | None = None
    usage: None = None
    system_fingerprint: str | None = None
    obfuscation: str | None = None
    # OpenAI; vLLM.
    service_tier: None = None
    prompt_token_ids: None = None


decode_plain = msgspec.json.Decoder(PlainChunk).decode
"""Return the PlainChunk of an event's data. Raises msgspec.DecodeError for any other chunk."""
