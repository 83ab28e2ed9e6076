"""What an answer used, wherever a server says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subnet.chat import ChatUsage

_MOST = 1 << 31


def read_usage(chunk: dict[str, Any]) -> ChatUsage | None:
    """From `usage` of a chunk or a whole answer, `x_groq.usage` (Groq), `usage` of its choice (Moonshot), or
    `prompt_eval_count` (Ollama). None where it has none that makes sense.
    """
    found = chunk.get("usage")
    if found is None and (choices := chunk.get("choices")) and isinstance(choices, list):
        found = _part(choices[0], "usage")
    if found is None and "x_groq" in chunk:
        found = _part(chunk["x_groq"], "usage")
    if found is None and "prompt_eval_count" in chunk:
        found = chunk
    return _usage(found) if isinstance(found, dict) else None


def summed(usages: Sequence[ChatUsage | None]) -> ChatUsage | None:
    """Of requests with the same prompt, which counts once. None where any of them did not tell."""
    told = [usage for usage in usages if usage is not None]
    if len(told) < len(usages):
        return None
    return ChatUsage(
        prompt_tokens=max(usage.prompt_tokens for usage in told),
        completion_tokens=sum(usage.completion_tokens for usage in told),
        cached_tokens=max(usage.cached_tokens for usage in told),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in told),
    )


def _part(whole: Any, name: str) -> Any:
    return whole.get(name) if isinstance(whole, dict) else None


def _usage(found: dict[str, Any]) -> ChatUsage | None:
    prompt = _count(found, "prompt_tokens", "input_tokens", "prompt_eval_count")
    completion = _count(found, "completion_tokens", "output_tokens", "eval_count")
    if prompt is None or completion is None:
        return None
    return ChatUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        # DeepSeek: prompt_cache_hit_tokens. Moonshot: cached_tokens.
        cached_tokens=_count(found.get("prompt_tokens_details"), "cached_tokens")
        or _count(found, "prompt_cache_hit_tokens", "cached_tokens")
        or 0,
        reasoning_tokens=_count(found.get("completion_tokens_details"), "reasoning_tokens") or 0,
    )


def _count(place: Any, *names: str) -> int | None:
    """The first of `names` that is a count: one that is far beyond all contexts would spoil every sum."""
    if not isinstance(place, dict):
        return None
    return next((value for name in names if type(value := place.get(name)) is int and 0 <= value < _MOST), None)
