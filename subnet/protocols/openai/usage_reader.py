"""Token usage of a response, wherever a server reports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subnet.chat import ChatUsage
from subnet.protocols.openai.extra_members import MemberReader

# Far beyond every context length: a larger count would make every sum that it enters useless.
_MAX_COUNT = 1 << 31
# Members that the gateway counts itself, and those of the details among them; all others are passed on.
_DETAILS = {
    "prompt_tokens_details": frozenset({"cached_tokens"}),
    "completion_tokens_details": frozenset({"reasoning_tokens"}),
}
_MEMBERS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens", *_DETAILS})


class UsageReader:
    """Reads the usage in the chunks of one response."""

    def __init__(self) -> None:
        self._members = MemberReader(_MEMBERS)
        self._details = {name: MemberReader(known) for name, known in _DETAILS.items()}

    def read(self, chunk: dict[str, Any]) -> ChatUsage | None:
        """Return the usage in a chunk or a whole response, or None if there is none, or it is invalid.

        It is read from `usage`, `usage` of the first choice (Moonshot), `x_groq.usage` (Groq), or `prompt_eval_count`
        (Ollama). Raises WireError for other members that are too many or nested too deeply.
        """
        usage = chunk.get("usage")
        if usage is None and (choices := chunk.get("choices")) and isinstance(choices, list):
            usage = _field(choices[0], "usage")
        if usage is None and "x_groq" in chunk:
            usage = _field(chunk["x_groq"], "usage")
        if usage is None and "prompt_eval_count" in chunk:
            return _to_usage(chunk, None)
        return _to_usage(usage, self._extra(usage)) if isinstance(usage, dict) else None

    def _extra(self, usage: dict[str, Any]) -> dict[str, Any] | None:
        extra = self._members.read(usage) or {}
        for name, reader in self._details.items():
            details = usage.get(name)
            if isinstance(details, dict) and (more := reader.read(details)):
                extra[name] = more
        return extra or None


def read_prompt_tokens(usage: Any) -> int:
    """Return the number of prompt tokens in the usage of a response without an answer; 0 if there is none."""
    return _count(usage, "prompt_tokens", "input_tokens", "total_tokens") or 0


def total_usage(usages: Sequence[ChatUsage | None]) -> ChatUsage | None:
    """Return the total of requests with the same prompt, which counts once; None if any usage is unknown.

    Only that of a single request has other members: what they count, and whether it adds up, is not known.
    """
    known = [usage for usage in usages if usage is not None]
    if len(known) < len(usages):
        return None
    return ChatUsage(
        prompt_tokens=max(usage.prompt_tokens for usage in known),
        completion_tokens=sum(usage.completion_tokens for usage in known),
        cached_tokens=max(usage.cached_tokens for usage in known),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in known),
        extra=known[0].extra if len(known) == 1 else None,
    )


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _to_usage(usage: dict[str, Any], extra: dict[str, Any] | None) -> ChatUsage | None:
    prompt = _count(usage, "prompt_tokens", "input_tokens", "prompt_eval_count")
    completion = _count(usage, "completion_tokens", "output_tokens", "eval_count")
    if prompt is None or completion is None:
        return None
    return ChatUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        # DeepSeek: prompt_cache_hit_tokens. Moonshot: cached_tokens.
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens")
        or _count(usage, "prompt_cache_hit_tokens", "cached_tokens")
        or 0,
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0,
        extra=extra,
    )


def _count(fields: Any, *names: str) -> int | None:
    """Return the first of `names` in `fields` that is a valid count."""
    if not isinstance(fields, dict):
        return None
    return next((value for name in names if type(value := fields.get(name)) is int and 0 <= value < _MAX_COUNT), None)
