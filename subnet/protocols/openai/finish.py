"""Why an answer ended, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping

from subnet.chat import ChatFinishReason
from subnet.errors import NodeError

# OpenAI's own; TGI, Mistral, Anthropic- and Gemini-compatible servers' and Zhipu's.
_WORDS: Mapping[ChatFinishReason, str] = {
    "stop": "stop eos eos_token end_turn stop_sequence stop_token end complete completed finished",
    "length": "length max_tokens max_length max_output_tokens model_length model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter safety recitation prohibited_content blocklist spii refusal sensitive",
}
_REASONS = {word: reason for reason, words in _WORDS.items() for word in words.split()}
# vLLM and SGLang: abort. OpenRouter: error. DeepSeek: insufficient_system_resource.
_BROKEN = frozenset({"abort", "aborted", "cancelled", "error", "insufficient_system_resource"})


def finish_reason(word: object, *, called: bool) -> ChatFinishReason | None:
    """None for an answer that goes on. An unknown word ended it too. A stop after calls is theirs. Raises NodeError for
    an answer that the server broke off.
    """
    if not isinstance(word, str) or not word:
        return None
    name = word.lower().replace("-", "_")
    if name in _BROKEN:
        raise NodeError(f"the server aborted the answer: {word[:100]}")
    reason = _REASONS.get(name, "stop")
    return "tool_calls" if called and reason == "stop" else reason
