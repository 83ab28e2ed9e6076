"""Mapping of upstream servers' error responses to the subnet's errors.

Sources: OpenAI's guide to error codes; vLLM vllm/entrypoints/openai (ErrorResponse); llama.cpp tools/server
(format_error_response); Ollama openai/openai.go (NewError); Text Generation Inference router (ErrorResponse);
LiteLLM 1.108 and transformers serve 5.19, which were run;
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
    RequestError,
    SubnetError,
    Unauthorized,
)
from subnet.http.error_body import ErrorBody
from subnet.http.lenient_json import without_halves
from subnet.http.retry_after import retry_after
from subnet.http.token_room import room_in

# Retry-After for an exhausted quota or unpaid account, in seconds: nobody pays within a minute.
UNPAID_RETRY_AFTER = 3600.0


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_QUOTA = _any_of("insufficient_quota", "insufficient.balance", "credit balance is too low", "payment_required")
_API_KEY = _any_of(
    "invalid_api_key",
    "api_key_invalid",
    "incorrect api key",
    "api key not valid",
    "authentication_error",
    "no_db_connection",  # LiteLLM without a database, for any key but its own
)
_CONTENT_POLICY = _any_of(
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
_CONTEXT_LENGTH = _any_of(
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
    "too large to process",
    "cannot be greater than max_model_len",
    "exceed context limit",
    "exceeded model token limit",  # Moonshot
    "model max length exceeded",
    "total number of tokens .*cannot exceed",  # Cohere
)
_RATE_LIMIT = _any_of("rate_limit", "too_many_requests", "resource_exhausted")
_UNKNOWN_MODEL = _any_of(
    "model_not_found",
    "not_found_error",
    "modelnotfound",
    "invalid model name passed in model=",  # LiteLLM
    "^ ?server is pinned to",  # transformers serve
)
_BUSY = _any_of("overloaded", "server busy", "too busy", "at capacity")

# A server's own failure, whatever it calls it in a stream: vLLM and SGLang report a crash of their engine as a
# BadRequestError, TGI any failure with status 422.
_ENGINE_FAILURE = _any_of(
    "engine", "cuda", "out of memory", "internal (server )?error", "failed during generation", "incomplete generation"
)

_BAD_REQUEST = (400, 413, 422)


class NotFound(NodeError):
    """The server has no such path, or no such model."""

    permanent = True


class _Rule(NamedTuple):
    """Error for responses with one of `statuses`, and with text that matches `pattern` if there is one."""

    statuses: Collection[int]
    pattern: re.Pattern[str] | None
    error: type[SubnetError]


# The first rule that matches applies; without one the error is a NodeError.
_RULES = (
    _Rule((404, 405, 501), None, NotFound),
    _Rule((402,), None, RateLimited),
    _Rule((429,), None, RateLimited),
    _Rule((401,), None, Unauthorized),
    _Rule((400, 403), _QUOTA, RateLimited),
    _Rule((400, 403), _API_KEY, Unauthorized),
    _Rule((400, 403, 422), _CONTENT_POLICY, ContentRefused),
    _Rule((403,), None, Unauthorized),
    # Groq: 413 for a request that exceeds the tokens per minute.
    _Rule(_BAD_REQUEST, _RATE_LIMIT, RateLimited),
    _Rule((*_BAD_REQUEST, 500), _CONTEXT_LENGTH, ContextLengthExceeded),
    _Rule(_BAD_REQUEST, _UNKNOWN_MODEL, NotFound),
    # TGI, in a stream: 422 for "Model is overloaded".
    _Rule(_BAD_REQUEST, _BUSY, NodeBusy),
    _Rule(_BAD_REQUEST, None, InvalidRequest),
    _Rule((529,), None, NodeBusy),
    _Rule((410, 411, 414, 415, 416, 417, 421, 431, 451), None, InvalidRequest),
    _Rule((500, 502, 503), _BUSY, NodeBusy),
)


def to_error(peer: str, status: int, body: Any, headers: Mapping[str, str] | None = None) -> SubnetError:
    """Convert an error response of `peer` to the error to raise.

    `body` is the JSON value, or the text if it is not JSON. For a `status` below 400, as an error in a stream has, the
    codes and words of the body decide, and a failure of the server's own is one whatever status the body gives it.
    The message of a RequestError is the server's own message only, because it is passed on to the client.
    """
    body = without_halves(body)
    error_body = ErrorBody.parse(body)
    in_stream = status < 400
    if in_stream:
        status = error_body.status
    wait = retry_after(headers or {}, body, error_body.message)
    error = _error_class(status, error_body, in_stream=in_stream)
    if error is NodeError and status == 503 and wait is not None:
        error = NodeBusy
    if error is RateLimited and (status == 402 or _QUOTA.search(error_body.text)):
        wait = UNPAID_RETRY_AFTER
    if issubclass(error, NodeError):
        message = f"{peer} answered {status}"
        failure = error(f"{message}: {error_body.message}" if error_body.message else message, retry_after=wait)
        failure.status = status
        return failure
    message = error_body.message or f"The upstream server rejected the request with status {status}."
    rejected = error(message, param=error_body.param)
    if isinstance(rejected, InvalidRequest | ContextLengthExceeded):
        rejected.room = room_in(message)
    if isinstance(rejected, InvalidRequest):
        rejected.status, rejected.upstream_type, rejected.upstream_code = status, error_body.type, error_body.code
    return rejected


def _error_class(status: int, error_body: ErrorBody, *, in_stream: bool) -> type[SubnetError]:
    error = next((rule.error for rule in _RULES if _matches(rule, status, error_body)), NodeError)
    if in_stream and error in (InvalidRequest, ContextLengthExceeded) and _ENGINE_FAILURE.search(error_body.message):
        return NodeError
    return error


def cannot_list(error: NodeError | RequestError) -> bool:
    """Return whether a server that answers the request for its models with `error` may generate all the same."""
    return isinstance(error, NotFound | RequestError) or (isinstance(error, NodeError) and error.status == 500)


def is_error(body: Any) -> bool:
    """Return whether a body with status 200 is an error: {"error": ...}, or older vLLM's {"object": "error"}."""
    return isinstance(body, dict) and (bool(body.get("error")) or body.get("object") == "error")


def _matches(rule: _Rule, status: int, error_body: ErrorBody) -> bool:
    return status in rule.statuses and (rule.pattern is None or rule.pattern.search(error_body.text) is not None)
