"""The one table from what servers say when they refuse, to our errors.

Sources: OpenAI's guide to error codes; vLLM vllm/entrypoints/openai (ErrorResponse); llama.cpp tools/server
(format_error_response); Ollama openai/openai.go (NewError); Text Generation Inference router (ErrorResponse);
Anthropic, Azure, Gemini, Groq, Mistral and OpenRouter: their API references on errors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from subnet.errors import (
    ContentRefused,
    ContextLengthExceeded,
    InvalidRequest,
    NodeBusy,
    NodeError,
    RateLimited,
    SubnetError,
    Unauthorized,
)
from subnet.http.error_body import Said
from subnet.http.retry_after import retry_after

# Nobody pays within the minute: when to ask again, in seconds.
UNPAID = 3600.0


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_UNPAID = _words("insufficient_quota", "insufficient.balance", "credit balance is too low", "payment_required")
_KEY = _words("invalid_api_key", "api_key_invalid", "incorrect api key", "api key not valid", "authentication_error")
_REFUSED = _words(
    "content_policy",
    "content_filter",
    "content management policy",
    "content filtering policy",
    "responsibleaipolicy",
    "our usage polic(y|ies)",
    "safety system",
    "content exists risk",
    "data_?inspection_?failed",
    "prohibited_content",
    "(in|out)put was flagged",
)
_TOO_LONG = _words(
    "context_length_exceeded",
    "exceed_context_size",
    "context window",
    "maximum context length",
    "maximum allowed length",
    "maximum (model|prompt|input) length",
    "available context size",
    "the (model's |max(imum)? )?context length",
    "context the overflows",
    "(prompt|input) is too long",
    "input token count .*exceeds",
    "reduce the length of the (messages|prompt)",
    "tokens.? \\+ .?max_new_tokens.? must be",
    "inputs.? must have less than",
)
_LIMITED = _words("rate_limit", "too_many_requests", "resource_exhausted")
_UNKNOWN_MODEL = _words("model_not_found", "not_found_error", "modelnotfound")
_BUSY = _words("overloaded", "server busy", "too busy", "at capacity")

_MISTAKES = (400, 413, 422)


class NotFound(NodeError):
    """The server has no such path, or no such model."""


class _Rule(NamedTuple):
    """With one of these statuses and, where there are any, these words, it is this error."""

    statuses: Collection[int]
    words: re.Pattern[str] | None
    error: type[SubnetError]


# The first that fits counts; what none fits is a NodeError.
_RULES = (
    _Rule((404, 405, 501), None, NotFound),
    _Rule((402,), None, RateLimited),
    _Rule((429,), None, RateLimited),
    _Rule((401,), None, Unauthorized),
    _Rule((400, 403), _UNPAID, RateLimited),
    _Rule((400, 403), _KEY, Unauthorized),
    _Rule((400, 403, 422), _REFUSED, ContentRefused),
    _Rule((403,), None, Unauthorized),
    # Groq: a request that is larger than the tokens of a minute is a 413.
    _Rule(_MISTAKES, _LIMITED, RateLimited),
    _Rule((*_MISTAKES, 500), _TOO_LONG, ContextLengthExceeded),
    _Rule(_MISTAKES, _UNKNOWN_MODEL, NotFound),
    _Rule(_MISTAKES, None, InvalidRequest),
    _Rule((529,), None, NodeBusy),
    _Rule((500, 502, 503), _BUSY, NodeBusy),
)


def refusal(peer: str, status: int, body: Any, headers: Mapping[str, str] | None = None) -> SubnetError:
    """The error for what `peer` answered: `body` is JSON, or text where it is none. A `status` below 400 is looked for
    in the body. A RequestError has the server's own words and nothing else.
    """
    said = Said.read(body)
    if status < 400:
        status = said.status
    wait = retry_after(headers or {}, body, said.message)
    error = next((rule.error for rule in _RULES if _fits(rule, status, said)), NodeError)
    if error is NodeError and status == 503 and wait is not None:
        error = NodeBusy
    if error is RateLimited and (status == 402 or _UNPAID.search(said.everything)):
        wait = UNPAID
    if issubclass(error, NodeError):
        message = f"{peer} answered {status}"
        return error(f"{message}: {said.message}" if said.message else message, retry_after=wait)
    return error(said.message or f"The upstream server rejected the request with status {status}.", param=said.param)


def has_error(body: Any) -> bool:
    """Whether an answer is none, though its status is 200: {"error": ...}, or vLLM's older {"object": "error"}."""
    return isinstance(body, dict) and (bool(body.get("error")) or body.get("object") == "error")


def _fits(rule: _Rule, status: int, said: Said) -> bool:
    return status in rule.statuses and (rule.words is None or rule.words.search(said.everything) is not None)
