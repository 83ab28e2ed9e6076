"""How many new tokens a server has room for: messages that users reported, and any others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.http.error_map import to_error
from subnet.http.token_room import room_in

# Where each was reported is in the comment above it.
MESSAGES = [
    # OpenAI, Azure, DeepSeek, older vLLM
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 32100"
            " tokens (100 in the messages,"
            " 32000 in the completion). Please reduce the length of the messages or completion."
        ),
        8092,
    ),
    (
        (
            "This model's maximum context length is 4097 tokens, however you requested 4322 tokens"
            " (4066 in your prompt;"
            " 256 for the completion). Please reduce your prompt; or completion length."
        ),
        31,
    ),
    (
        (
            "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in the"
            " messages, 10000 in the completion)."
        ),
        0,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 8202 tokens. Please"
            " reduce the length of the messages."
        ),
        0,
    ),
    # OpenAI
    (
        (
            "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided"
            " 32000."
        ),
        16384,
    ),
    ("Invalid 'max_tokens': integer above maximum value. Expected a value <= 16384, but got 32000 instead.", 16384),
    # vLLM since 0.10, and since 0.20, which stops counting
    (
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 64000. This model's maximum context length is 64001"
            " tokens and your request has 24235 input tokens (64000 > 64001 - 24235). None"
        ),
        39766,
    ),
    (
        (
            "This model's maximum context length is 128000 tokens. However, you requested 65535 output tokens and your"
            " prompt contains at least 62466 input tokens, for a total of at least 128001 tokens."
        ),
        None,
    ),
    # SGLang
    (
        (
            "Requested token count exceeds the model's maximum context length of 202752 tokens. You"
            " requested a total of"
            " 202941 tokens: 170941 tokens from the input messages and 32000 tokens for the"
            " completion. Please reduce the"
            " number of tokens in the input messages or the completion to fit within the limit."
        ),
        31811,
    ),
    ("The input (61709 tokens) is longer than the model's context length (40960 tokens).", 0),
    ("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).", 0),
    # TGI, Together
    (
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 80"
            " `inputs` tokens and 4096"
            " `max_new_tokens`"
        ),
        4017,
    ),
    # Anthropic
    (
        (
            "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or"
            " `max_tokens` and try again"
        ),
        21041,
    ),
    ("max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet", 8192),
    ("prompt is too long: 205000 tokens > 200000 maximum", 0),
    # OpenRouter
    (
        (
            "This endpoint's maximum context length is 131072 tokens. However, you requested about"
            " 138956 tokens (7884 of"
            " text input, 131072 in the output). Please reduce the length of either one"
        ),
        123188,
    ),
    (
        (
            "This endpoint's maximum context length is 131072 tokens. However, you requested about"
            " 139056 tokens (7884 of"
            " text input, 100 of tool input, 131072 in the output). Please reduce the length of either one"
        ),
        123088,
    ),
    # DeepSeek, DashScope, Volcengine, Groq, Vertex AI, Bedrock
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
    ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]", 8192),
    (
        (
            "The parameter `max_completion_tokens` specified in the request are not valid: integer above maximum value,"
            " expected a value <= 12288, but got 32000 instead. Request id: 0217752964393142"
        ),
        12288,
    ),
    (
        (
            "`max_tokens` must be less than or equal to `40960`, the maximum value for `max_tokens` is less than the"
            " `context_window` for this model"
        ),
        40960,
    ),
    (
        (
            "Unable to submit request because it has a maxOutputTokens value of 32000 but the supported range is from 1"
            " (inclusive) to 8193 (exclusive). Update the value and try again."
        ),
        8192,
    ),
    ("The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value", 4096),
    # Mistral, xAI, llama.cpp: the prompt alone
    ("Prompt contains 32768 tokens and 0 draft tokens, too large for model with 32768 maximum context length", 0),
    ("This model's maximum prompt length is 131072 but the request contains 538000 tokens.", 0),
    ("the request exceeds the available context size, try increasing it", 0),
    # Cerebras, and errors about other numbers
    ("Please reduce the length of the messages or completion.", None),
    ("Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 32 instead.", None),
    ("max_tokens must be at least 1, got -12", None),
    ("", None),
]


@pytest.mark.parametrize(("message", "room"), MESSAGES)
def test_messages(message: str, room: int | None) -> None:
    assert room_in(message) == room


@given(
    st.lists(
        st.sampled_from(
            [*MESSAGES, ("context length is ", 0), ("max_tokens ", 0), ("9" * 40, 0), ("maxOutputTokens", 0)]
        ),
        max_size=20,
    )
)
def test_any_words(parts: list[tuple[str, int | None]]) -> None:
    """Whatever a server says, the room is a number of tokens, or not known."""
    room = room_in(" ".join(text for text, _ in parts))
    assert room is None or 0 <= room < 10**10


def test_errors_have_it() -> None:
    """It is known of refusals for the length of the context, and for the number of new tokens."""
    context = to_error("x", 400, {"error": {"message": MESSAGES[0][0], "code": "context_length_exceeded"}})
    output = to_error("x", 400, {"error": {"message": MESSAGES[4][0], "param": "max_tokens"}})
    assert isinstance(context, ContextLengthExceeded)
    assert isinstance(output, InvalidRequest)
    assert (context.room, output.room) == (8092, 16384)
