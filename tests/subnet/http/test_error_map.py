"""Mapping of upstream servers' error responses, and of the times to retry them."""

from __future__ import annotations

from email.utils import formatdate
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from subnet.http.error_map import UNPAID_RETRY_AFTER, NotFound, to_error
from subnet.http.retry_after import retry_after

# Error responses and the errors they are mapped to: status, body, error, param.

# A backend's error body in the message of LiteLLM's own.
QUOTED = 'litellm.BadRequestError: A - {{"error":{{"message":"{}","param":"{}","code":400}}}}\n\nLiteLLM: no fallback'


def litellm_error(message: str) -> Any:
    """Return LiteLLM's error body with this message."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "400"}}


ERROR_RESPONSES: list[tuple[int, Any, type[SubnetError], str | None]] = [
    # OpenAI
    (
        400,
        {"error": {"message": "bad", "type": "invalid_request_error", "param": "temperature"}},
        InvalidRequest,
        "temperature",
    ),
    (
        400,
        {"error": {"message": "too long", "code": "context_length_exceeded", "param": "messages"}},
        ContextLengthExceeded,
        "messages",
    ),
    (400, {"error": {"message": "no", "code": "content_policy_violation"}}, ContentRefused, None),
    (401, {"error": {"message": "Incorrect API key provided: sk-..", "code": "invalid_api_key"}}, Unauthorized, None),
    (403, {"error": {"message": "Country, region, or territory not supported"}}, Unauthorized, None),
    (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, NotFound, None),
    (429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, RateLimited, None),
    (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, RateLimited, None),
    (500, {"error": {"message": "The server had an error", "type": "server_error"}}, NodeError, None),
    (503, {"error": {"message": "The engine is currently overloaded, please try again later"}}, NodeBusy, None),
    # Azure
    (
        400,
        {
            "error": {
                "message": "The response was filtered due to Azure OpenAI's content management policy.",
                "param": "prompt",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        ContentRefused,
        "prompt",
    ),
    # vLLM, also its older form
    (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 512 tokens.",
                "type": "BadRequestError",
                "code": 400,
            }
        },
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 512 tokens.", "code": 400},
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {"error": {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."}},
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {
            "error": {
                "message": "max_tokens=5000 cannot be greater than max_model_len=1024. Please request fewer output"
                " tokens. (parameter=max_tokens, value=5000)",
                "type": "BadRequestError",
                "param": "max_tokens",
                "code": 400,
            }
        },
        ContextLengthExceeded,
        "max_tokens",
    ),
    # SGLang
    (
        400,
        {"object": "error", "message": "The input (9 tokens) is longer than the model's context length (8 tokens)."},
        ContextLengthExceeded,
        None,
    ),
    # llama-server
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "request (9 tokens) exceeds it",
                "type": "exceed_context_size_error",
                "n_ctx": 8,
            }
        },
        ContextLengthExceeded,
        None,
    ),
    (
        500,
        {"error": {"code": 500, "message": "input (901 tokens) is too large to process.", "type": "server_error"}},
        ContextLengthExceeded,
        None,
    ),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, NodeError, None),
    # Ollama
    (
        400,
        {"error": {"message": "the input length exceeds the context length", "type": "invalid_request_error"}},
        ContextLengthExceeded,
        None,
    ),
    (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, NodeBusy, None),
    (404, {"error": {"message": "model 'x' not found", "type": "not_found_error"}}, NotFound, None),
    # Text Generation Inference
    (
        422,
        {
            "error": "Input validation error: `inputs` must have less than 8 tokens. Given: 9",
            "error_type": "validation",
        },
        ContextLengthExceeded,
        None,
    ),
    (
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8",
            "error_type": "validation",
        },
        ContextLengthExceeded,
        None,
    ),
    (429, {"error": "Model is overloaded", "error_type": "overloaded"}, RateLimited, None),
    # Mistral, and FastAPI
    (
        422,
        {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs"}]}},
        InvalidRequest,
        "n",
    ),
    (
        422,
        {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Field required"}]},
        InvalidRequest,
        "messages.0.role",
    ),
    (
        400,
        {"object": "error", "message": "Prompt contains 9 tokens, too large for model with 8 maximum context length"},
        ContextLengthExceeded,
        None,
    ),
    # Anthropic
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}},
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        RateLimited,
        None,
    ),
    (400, {"type": "error", "error": {"message": "Output blocked by content filtering policy"}}, ContentRefused, None),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, NodeBusy, None),
    # Gemini
    (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        Unauthorized,
        None,
    ),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (9) exceeds the maximum number of tokens allowed (8).",
                }
            }
        ],
        ContextLengthExceeded,
        None,
    ),
    (429, [{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}], RateLimited, None),
    # Groq
    (
        413,
        {"error": {"message": "Request too large", "type": "tokens", "code": "rate_limit_exceeded"}},
        RateLimited,
        None,
    ),
    # OpenRouter
    (402, {"error": {"code": 402, "message": "Insufficient credits"}}, RateLimited, None),
    (
        403,
        {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}},
        ContentRefused,
        None,
    ),
    # DeepSeek
    (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}, ContentRefused, None),
    # LiteLLM 1.108, run
    (400, {"error": {"message": "No connected db.", "type": "no_db_connection", "code": "400"}}, Unauthorized, None),
    (
        400,
        {
            "error": {
                "message": "/chat/completions: Invalid model name passed in model=nope. Call `/v1/models` to view"
                " available models for your key.",
                "type": "invalid_request_error",
                "param": None,
                "code": "400",
            }
        },
        NotFound,
        None,
    ),
    (400, litellm_error(QUOTED.format("temperature must be in [0, 2]", "temperature")), InvalidRequest, "temperature"),
    (400, litellm_error(QUOTED.format("oh", "a")[:60]), InvalidRequest, None),
    (400, litellm_error(QUOTED.replace('{{"message', '["message')), InvalidRequest, None),
    (
        400,
        litellm_error(QUOTED.format("max_tokens=5000 cannot be greater than max_model_len=1024.", "max_tokens")),
        ContextLengthExceeded,
        "max_tokens",
    ),
    (429, {"error": {"message": "cooldown", "type": "all_deployments_in_cooldown", "code": "429"}}, RateLimited, None),
    # transformers serve 5.19, run
    (400, {"detail": "Server is pinned to 'a'; requested 'b'."}, NotFound, None),
    (422, {"detail": "Unexpected fields in the request: {'top_k'}"}, InvalidRequest, None),
    # unknown servers
    (400, "nonsense", InvalidRequest, None),
    (413, "<html>Request Entity Too Large</html>", InvalidRequest, None),
    (405, "", NotFound, None),
    (408, "", NodeError, None),
    (409, "", NodeError, None),
    (425, "", NodeError, None),
    (502, "<html>Bad Gateway</html>", NodeError, None),
    (504, None, NodeError, None),
]


@pytest.mark.parametrize(("status", "body", "error", "param"), ERROR_RESPONSES)
def test_every_error_response_is_mapped(status: int, body: Any, error: type[SubnetError], param: str | None) -> None:
    """Every server's error response is mapped to the right error and parameter."""
    mapped = to_error("peer", status, body)
    assert type(mapped) is (NodeError if error is NodeError else error)
    assert mapped.param == param
    assert mapped.message


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "busy", "code": 429}}, RateLimited),
        ({"error": {"message": "busy", "code": "429"}}, RateLimited),
        ({"error": {"message": "busy", "type": "rate_limit_error"}}, RateLimited),
        ({"error": {"message": "no such key", "type": "authentication_error"}}, Unauthorized),
        ({"error": {"message": "wrong", "type": "invalid_request_error", "param": "stop"}}, InvalidRequest),
        ({"error": {"message": "wrong", "code": 400, "type": "BadRequestError"}}, InvalidRequest),
        ({"error": {"message": "too long", "type": "exceed_context_size_error"}}, ContextLengthExceeded),
        ({"error": {"message": "Overloaded", "type": "overloaded_error"}}, NodeBusy),
        ({"error": {"message": "Provider disconnected", "code": 502}}, NodeError),
        ({"error": {"message": "oh"}}, NodeError),
        ({"error": "oh"}, NodeError),
        ({"error": {}}, NodeError),
        ([{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED"}}], RateLimited),
        ("oh", NodeError),
        # A status of another name: TGI has 422 for all of its errors in a stream.
        (
            {
                "error": {
                    "message": "Input validation error: `top_n_tokens` must be >= 0 and <= 5. Given: 10",
                    "http_status_code": 422,
                }
            },
            InvalidRequest,
        ),
        ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, NodeBusy),
        ({"error": {"message": "Request failed during generation: oh", "http_status_code": 422}}, NodeError),
        ({"error": {"message": "Incomplete generation", "http_status_code": 422}}, NodeError),
        ({"error": {"message": "wrong", "statusCode": 400}}, InvalidRequest),
        ({"error": {"message": "slow down", "upstream_status": "429"}}, RateLimited),
        # No code at all.
        ({"error": {"message": "`stop` must be a list of at most 4 strings"}}, InvalidRequest),
        ({"error": "top_logprobs is not supported by this model"}, InvalidRequest),
        ({"error": "`top_p` has to be a float > 0 and < 1, but is 7.0"}, InvalidRequest),
        ({"error": {"message": "internal error: state must be reset"}}, NodeError),
        # Ollama, of a call whose JSON it cannot read.
        ({"error": "invalid character '}' looking for beginning of value"}, NodeError),
        ({"error": "an error was encountered while running the model: unexpected EOF"}, NodeError),
        ({"error": {"message": "EngineCore encountered an issue", "code": 400, "type": "BadRequestError"}}, NodeError),
    ],
)
def test_error_without_a_status_is_mapped_by_its_codes_and_words(body: Any, error: type[SubnetError]) -> None:
    """An error in an event, or with status 200, is mapped by its codes; without any, by the words of its message."""
    assert type(to_error("peer", 200, body)) is error


@given(
    status=st.integers(200, 599),
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "message", "detail", "code", "type", "param", "loc", "msg", "metadata", "details"]
                ),
                inner,
            )
        ),
        max_leaves=8,
    ),
)
def test_any_body_is_mapped(status: int, body: Any) -> None:
    """Any body is mapped to an error, and to a RequestError only if the request may be invalid."""
    mapped = to_error("peer", status, body, {"retry-after": str(body)[:20]})
    assert isinstance(mapped, NodeError | RequestError)
    about_the_request = (400, 403, 410, 411, 413, 414, 415, 416, 417, 421, 422, 431, 451, 500)
    assert not isinstance(mapped, RequestError) or status in about_the_request or status < 400


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "20ms"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-reset-tokens": "1.5s",
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-remaining-tokens": "0",
            },
            1.5,
        ),
        ({"x-ratelimit-reset-tokens": "1h2m3s"}, 3723.0),
        ({"x-ratelimit-reset-tokens": "later"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After is read from the headers of all servers, the most precise one first."""
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


def test_retry_after_may_be_a_date() -> None:
    """Retry-After may be an HTTP date, or OpenRouter's milliseconds since 1970 in a header or the body."""
    moment = time() + 100
    body = {"error": {"metadata": {"headers": {"X-RateLimit-Reset": str(int(moment * 1000))}}}}
    for seconds in (
        retry_after({"retry-after": formatdate(moment, usegmt=True)}),
        retry_after({"x-ratelimit-reset": str(int(moment * 1000))}),
        retry_after({}, body),
    ):
        assert seconds is not None
        assert 90 < seconds <= 100
    assert retry_after({"retry-after": formatdate(moment - 1000, usegmt=True)}) == 0


def test_retry_after_is_read_from_the_body() -> None:
    """Retry-After is read from Gemini's RetryInfo, and from OpenAI's and Groq's message."""
    body = {"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]}}
    assert retry_after({}, body) == 34
    assert retry_after({}, {}, "Rate limit reached. Please try again in 7m1.5s. Visit ...") == 421.5


def test_unpaid_account_is_retried_much_later() -> None:
    """An exhausted quota or unpaid account is retried after an hour, whatever Retry-After says."""
    for status, body in ((429, {"error": {"code": "insufficient_quota", "message": "quota"}}), (402, "pay")):
        assert to_error("peer", status, body, {"retry-after": "1"}).retry_after == UNPAID_RETRY_AFTER


def test_503_with_retry_after_is_busy() -> None:
    """A 503 response means a busy server with Retry-After, and a failed one without."""
    assert type(to_error("peer", 503, "")) is NodeError
    busy = to_error("peer", 503, "", {"retry-after": "2"})
    assert (type(busy), busy.retry_after) == (NodeBusy, 2)


def test_the_error_that_a_proxy_quotes() -> None:
    """Of an error that a proxy quotes in its own, the client gets the message."""
    mapped = to_error("peer", 400, litellm_error(QUOTED.format("temperature must be in [0, 2]", "temperature")))
    assert mapped.message == "temperature must be in [0, 2]"
