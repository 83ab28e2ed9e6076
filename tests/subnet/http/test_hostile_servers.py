"""Servers that send invalid or excessive data: one clear error or an answer, soon, and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from subnet.errors import InvalidRequest, NodeError, RateLimited, WireError
from subnet.http.retry_after import retry_after
from tests.chat_node import chat, chat_scripted, node
from tests.provider import Provider, Script, chunk, error_response, event, events, json_response, raw

# More digits than a float can hold, or Python's limit for integers in text.
DIGITS = "9" * 4000
DAY = 86400.0


def call(**function: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": 0, "function": {"name": "f", **function}}]})


async def test_tool_calls_are_limited() -> None:
    """A response with more tool calls than any model makes is rejected at once."""
    calls = [{"index": number, "function": {"name": "f"}} for number in range(50_000)]
    with pytest.raises(WireError, match="more than 1024 tool calls"):
        await chat_scripted(events(chunk({"tool_calls": calls}), chunk(finish="tool_calls")))


async def test_deeply_nested_arguments_are_passed_on() -> None:
    """Deeply nested arguments of a tool call are passed on as text."""
    result = await chat_scripted(
        events(call(arguments="[" * 100_000), call(arguments="{}"), chunk(finish="tool_calls"))
    )
    assert result.calls() == [("f", "[" * 100_000 + "{}")]


@pytest.mark.parametrize("number", [f"-{DIGITS}", str(1 << 53), "true", '"-1"'])
async def test_invalid_logprobs_are_rejected(number: str) -> None:
    """A logprob that is not a finite number is rejected, also an integer that is too large for a float."""
    entry = f'{{"token": "a", "logprob": {number}}}'
    broken = f'{{"choices": [{{"index": 0, "delta": {{"content": "a"}}, "logprobs": {{"content": [{entry}]}}}}]}}'
    with pytest.raises(WireError, match="a token has no finite logprob"):
        await chat_scripted(events(broken), logprobs=True)


async def test_integer_logprobs_are_accepted() -> None:
    """A logprob may be an integer, as for a token with probability 1."""
    logprobs = {"content": [{"token": "a", "logprob": 0}, {"token": "b", "logprob": -9999}]}
    result = await chat_scripted(
        events(chunk({"content": "ab"}, logprobs=logprobs), chunk(finish="stop")), logprobs=True
    )
    assert [entry["logprob"] for entry in result.logprobs()] == [0.0, -9999.0]


@pytest.mark.parametrize(
    "make", [lambda error: events({"error": error}), lambda error: json_response({"error": error}, 500)]
)
@pytest.mark.parametrize("code", ["9" * 5000, "٤٢٩" * 50, 10**30, -400, 429.5, [429], {}, True, None])
async def test_any_error_code_is_accepted(make: Callable[[Any], Script], code: Any) -> None:
    """An error with any kind of code is reported with its message."""
    with pytest.raises(NodeError, match="no such luck"):
        await chat_scripted(make({"message": "no such luck", "code": code}))


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ({"retry-after": "99999999999"}, None, ""),
        ({"retry-after": "1e308"}, None, ""),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None, ""),
        ({"retry-after-ms": "1e300"}, None, ""),
        ({"x-ratelimit-reset-requests": f"{DIGITS}s"}, None, ""),
        ({"x-ratelimit-reset": "1e308"}, None, ""),
        ({}, {"error": {"details": [{"retryDelay": f"{DIGITS}d"}]}}, ""),
        ({}, None, f"Please try again in {DIGITS[:900]}s"),
    ],
)
def test_retry_after_is_at_most_a_day(headers: dict[str, str], body: Any, text: str) -> None:
    """Retry-After is limited to a day, so that a server's mistake does not remove it for good."""
    assert retry_after(headers, body, text) == DAY


@pytest.mark.parametrize("retry_after_header", ["inf", "nan", "-5", "Fri, 99 Foo 9999", "soon", ""])
async def test_invalid_retry_after_is_ignored(retry_after_header: str) -> None:
    """A rate limit with an invalid Retry-After is a rate limit without one."""
    with pytest.raises(RateLimited) as caught:
        await chat_scripted(error_response(429, retry_after=retry_after_header))
    assert caught.value.retry_after in (None, 0.0)


async def test_response_size_is_limited() -> None:
    """The bytes of a whole response are limited, not only those of one event."""
    piece = event(chunk({"content": "x" * (1 << 20)}))
    with pytest.raises(WireError, match="sent more than"):
        await chat_scripted(raw(*[piece] * 260))


@pytest.mark.parametrize("count", [-1, 1 << 31, 10**30, 7.0, "7", True, None, [7]])
async def test_invalid_usage_is_ignored(count: Any) -> None:
    """Usage with an invalid count is ignored."""
    used = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count}}
    result = await chat_scripted(events(chunk({"content": "a"}), chunk(finish="stop"), used))
    assert (result.text(), result.usage) == ("a", None)


async def test_key_is_redacted() -> None:
    """An API key that the server repeats is redacted in the message and the parameter of an error."""
    key = "sk-a-secret-of-somebody"
    refusal = error_response(400, f"not with {key}", param=f"Bearer {key}")
    async with Provider(refusal) as provider, node(provider.url, api_key=key) as protocol:
        with pytest.raises(InvalidRequest) as caught:
            await chat(protocol)
    assert key not in f"{caught.value.message} {caught.value.param}"


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31mred", "x" * 1025, 7, None])
async def test_unusable_names_of_models_are_ignored(name: Any) -> None:
    """A model whose name could forge a line of a log or a header is not listed; the others are."""
    models = [{"id": name}, {"id": "usable", "aliases": ["also", name]}]
    async with Provider(models=models) as provider, node(provider.url) as protocol:
        assert [card.id for card in (await protocol.rpc_info()).cards] == ["usable"]


async def test_endless_model_list() -> None:
    """A list of more models than any server has is refused."""
    models = [{"id": f"model-{number}"} for number in range(10_001)]
    async with Provider(models=models) as provider, node(provider.url) as protocol:
        with pytest.raises(WireError, match="more than 10000 models"):
            await protocol.rpc_info()
    async with Provider(models=models[:-1]) as provider, node(provider.url) as protocol:
        assert len((await protocol.rpc_info()).cards) == 10_000
