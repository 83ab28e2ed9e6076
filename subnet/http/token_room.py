"""How many new tokens a server has room for, from the words in which it refused more.

Every message that is read here was reported by users of OpenAI, Azure, Anthropic, DeepSeek, DashScope, Gemini, Groq,
OpenRouter, Together, TGI, vLLM, SGLang or Volcengine.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Of a message that is searched, in characters.
_MAX_MESSAGE = 4096

_N = r"[`'\"(]{0,2}(\d{1,10})\b"
# Nothing but words between two numbers.
_WORDS = r"[^\d]{1,160}?"


def _compiled(*patterns: str) -> list[re.Pattern[str]]:
    return [re.compile(pattern, re.IGNORECASE | re.DOTALL) for pattern in patterns]


# The prompt alone is too long, or is all that the server counts.
_PROMPT_ALONE = _compiled(
    r"(messages?|prompt|input) resulted in",
    r"(prompt|input) is too long",
    r"maximum (prompt|input) length",
    r"input .{0,40}longer than the model's",
    r"exceeds? the available context size",
    r"input length .{0,40}exceeds",
    r"input token count",
    r"prompt contains",
)

# New vLLM counts no further than the first token that does not fit: that says nothing about the whole prompt.
_AT_LEAST = _compiled(r"prompt contains at least")

# The largest number of new tokens, whatever the prompt.
_LARGEST = _compiled(
    rf"supports at most {_N} (?:completion|output) tokens",
    rf"max_(?:completion_)?tokens\b[^\d]{{0,80}}\[1, ?{_N}\]",
    rf"max_(?:completion_)?tokens\b[^\d]{{0,120}}expected a value <= {_N}",
    rf"max_(?:completion_)?tokens\b[^\d]{{0,20}}must be less than or equal to {_N}",
    rf"max_tokens: \d{{1,10}} > {_N}, which is the maximum allowed number of output tokens",
    rf"maximum tokens you requested exceeds the model limit of {_N}",
)
# The same, but the number itself is too large.
_LARGEST_EXCLUSIVE = _compiled(rf"maxOutputTokens.{{0,200}}\bto {_N} \(exclusive\)")

# The context length, and the tokens of the prompt.
_CONTEXT_AND_PROMPT = _compiled(
    rf"max_new_tokens.? must be <= {_N}\.? Given: {_N} .?inputs",
    rf"context length is{_WORDS}{_N} tokens and your request has {_N} input tokens",
)
# The tokens of the prompt, those of the answer, and the context length.
_SUM = _compiled(rf"exceed context limit: {_N} \+ {_N} > {_N}")
# The context length, the tokens of both, and those of the answer.
_CONTEXT_TOTAL_ANSWER = _compiled(
    rf"context length (?:is|of){_WORDS}{_N} tokens{_WORDS}requested (?:a total of |about )?{_N} tokens"
    rf".{{1,120}}?\b{_N} (?:tokens )?(?:in|for) the (?:completion|output)"
)


def room_in(message: str) -> int | None:
    """Return the maximum number of new tokens for which a server would have taken the request; None if it is unknown.

    0: the prompt itself is too long. `message` is that of its refusal.
    """
    message = message[:_MAX_MESSAGE]
    if _first(_AT_LEAST, message):
        return None
    for patterns, room in _READERS:
        if found := _first(patterns, message):
            return max(0, room([int(number) for number in found.groups()]))
    return 0 if _first(_PROMPT_ALONE, message) else None


def _first(patterns: list[re.Pattern[str]], message: str) -> re.Match[str] | None:
    return next((found for pattern in patterns if (found := pattern.search(message))), None)


_READERS: tuple[tuple[list[re.Pattern[str]], Callable[[list[int]], int]], ...] = (
    (_LARGEST, lambda numbers: numbers[0]),
    (_LARGEST_EXCLUSIVE, lambda numbers: numbers[0] - 1),
    (_CONTEXT_AND_PROMPT, lambda numbers: numbers[0] - numbers[1]),
    (_SUM, lambda numbers: numbers[2] - numbers[0]),
    (_CONTEXT_TOTAL_ANSWER, lambda numbers: numbers[0] - (numbers[1] - numbers[2])),
)
