"""Reading requests to /v1/completions, /v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.completions.types import CompletionRequest
from adapter.api.completions.validation import read_completion
from adapter.api.embeddings.types import EmbeddingRequest, read_embedding
from adapter.api.tokenize.types import DetokenizeRequest, TokenizeRequest, read_detokenize, read_tokenize
from adapter.errors import BadRequest

MISSING = "missing_required_parameter"
CLASH = "invalid_parameter_combination"
FORMS = ["Hello", ["Hello"], ["Hello", "you"], [1, 2, 3], [[1, 2], [3]]]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def complete(**fields: Any) -> CompletionRequest:
    return read_completion(body(**({"prompt": "Hello"} | fields)))[0]


def embed(**fields: Any) -> EmbeddingRequest:
    return read_embedding(body(**({"input": "Hello"} | fields)))[0]


def tokenize(**fields: Any) -> TokenizeRequest:
    return read_tokenize(body(**fields))[0]


def refusal(read: Any, **fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    return caught.value.param, caught.value.code


def test_minimal_completion() -> None:
    """A completion request needs only a model and a prompt; max_tokens defaults to 16."""
    request = complete()
    assert (request.prompts, request.limit, request.num_logprobs) == (["Hello"], 16, None)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_prompts_and_inputs(form: Any) -> None:
    """A text, a list of texts, token ids and lists of token ids are each read as such."""
    expected = [form] if isinstance(form, str) or isinstance(form[0], int) else form
    assert complete(prompt=form).prompts == expected
    assert embed(input=form).inputs == expected


def test_completion() -> None:
    """Completion parameters at the ends of their ranges are read unchanged."""
    request = complete(max_tokens=0, echo=True, logprobs=5, n=2, best_of=20, logit_bias={"1": 2})
    assert (request.limit, request.echo, request.num_logprobs, request.best_of) == (0, True, 5, 20)
    assert request.logit_bias == {1: 2.0}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "invalid_type"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [[]]}, "prompt[0]", "invalid_value"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, 2, "a"]}, "prompt[2]", "invalid_type"),
        ({"prompt": [1, [2]]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, True]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, -1]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], [2, 2**31]]}, "prompt[1][1]", "invalid_value"),
        ({"prompt": ["a"] * 2049}, "prompt", "invalid_value"),
        ({"prompt": [[1]] * 2049}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 20, "n": 103}, "n", "invalid_value"),
        ({"prompt": [[1]] * 1025, "best_of": 2}, "best_of", "invalid_value"),
        ({"max_tokens": -2}, "max_tokens", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"best_of": 21}, "best_of", "invalid_value"),
        ({"best_of": 0}, "best_of", "invalid_value"),
        ({"best_of": 2, "n": 3}, "best_of", "invalid_value"),
        ({"best_of": 2, "stream": True}, "best_of", CLASH),
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"stream_options": {}}, "stream_options", CLASH),
        ({"min_tokens": 17}, "min_tokens", "invalid_value"),
        ({"guided_regex": "a", "structured_outputs": {"regex": "a"}}, "guided_regex", CLASH),
    ],
)
def test_invalid_completions(fields: dict[str, Any], param: str, code: str) -> None:
    """The error for an invalid completion request names its exact place and the kind of mistake."""
    assert refusal(complete, **fields) == (param, code)


def test_long_prompts() -> None:
    """The limit on the number of prompts does not count token ids, and best_of may be streamed if it equals n."""
    assert complete(prompt=[7] * 5000).prompts == [[7] * 5000]
    assert complete(best_of=1, stream=True).best_of == 1
    assert complete(prompt=["a"] * 16, n=128).n == 128


def test_completion_without_a_prompt() -> None:
    """A prompt is required, because OpenAI's default, the end-of-text token, means nothing to other models."""
    with pytest.raises(BadRequest) as caught:
        read_completion(body())
    assert (caught.value.param, caught.value.code) == ("prompt", MISSING)


def test_embedding() -> None:
    """Embedding options are read, and unknown ones reported."""
    found = read_embedding(body(input="a", encoding_format="base64", dimensions=1, user="me", truncate=True))
    assert (found.request.encoding_format, found.request.dimensions, found.unknown) == ("base64", 1, ("truncate",))


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a"] * 2049}, "input", "invalid_value"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": ["a", [1]]}, "input[1]", "invalid_type"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "invalid_value"),
        ({"model": ""}, "model", "missing_required_parameter"),
    ],
)
def test_invalid_embeddings(fields: dict[str, Any], param: str, code: str) -> None:
    """The error for an invalid embedding request names its exact place and the kind of mistake."""
    assert refusal(embed, **fields) == (param, code)


def test_tokenize() -> None:
    """/tokenize takes either a prompt or messages, and the model is optional."""
    assert read_tokenize(b'{"prompt": ""}')[0] == TokenizeRequest(prompt="")
    messages = [{"role": "user", "content": "Hello"}]
    request = tokenize(messages=messages, add_generation_prompt=False, chat_template_kwargs={"a": 1})
    assert (request.prompt, request.add_generation_prompt, request.chat_template_kwargs) == (None, False, {"a": 1})
    assert refusal(tokenize) == ("prompt", MISSING)
    assert refusal(tokenize, prompt="a", messages=messages) == ("prompt", CLASH)
    assert refusal(tokenize, messages=[{"role": "user", "content": None}]) == ("messages[0].content", "invalid_type")


def test_detokenize() -> None:
    """/detokenize takes a list of token ids, which may be empty."""
    assert read_detokenize(b'{"tokens": [1, 2]}')[0] == DetokenizeRequest(tokens=[1, 2])
    assert read_detokenize(b'{"model": "m", "tokens": []}')[0].tokens == []
    assert refusal(lambda **fields: read_detokenize(body(**fields)), tokens=[1, -2]) == ("tokens[1]", "invalid_value")


_INPUT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(_INPUT)
def test_any_input_is_read_or_refused(value: Any) -> None:
    """Any JSON prompt is rejected, or read as a list of texts or a list of token id lists, never mixed."""
    with suppress(BadRequest):
        found = complete(prompt=value).prompts
        assert found
        assert all(isinstance(one, str) for one in found) or all(
            isinstance(one, list) and all(type(token) is int for token in one) for one in found
        )
