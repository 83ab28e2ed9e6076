"""Mapping of other servers' finish reasons to OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping

from subnet.chat import ChatFinishReason
from subnet.errors import NodeError

# OpenAI's own; TGI's, Mistral's, Zhipu's, and those of Anthropic- and Gemini-compatible servers.
_SYNONYMS: Mapping[ChatFinishReason, str] = {
    "stop": "stop eos eos_token end_turn stop_sequence stop_token end complete completed finished",
    "length": "length max_tokens max_length max_output_tokens model_length model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter safety recitation prohibited_content blocklist spii refusal sensitive",
}
_REASONS = {name: reason for reason, names in _SYNONYMS.items() for name in names.split()}
# vLLM and SGLang: abort. OpenRouter: error. DeepSeek: insufficient_system_resource.
_ABORTED = frozenset({"abort", "aborted", "cancelled", "error", "insufficient_system_resource"})


def to_finish_reason(value: object, *, has_calls: bool) -> ChatFinishReason | None:
    """Convert a server's finish reason to OpenAI's; None if the answer is not finished.

    An unknown reason counts as "stop", and "stop" after tool calls as "tool_calls". Raises NodeError if the server
    aborted the answer.
    """
    if not isinstance(value, str) or not value:
        return None
    name = value.lower().replace("-", "_")
    if name in _ABORTED:
        raise NodeError(f"the server aborted the answer: {value[:100]}")
    reason = _REASONS.get(name, "stop")
    return "tool_calls" if has_calls and reason == "stop" else reason
