"""Servers that mean harm, or are out of their minds: one clear error or the answer, soon, and nothing that grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from subnet.errors import InvalidRequest, NodeError, RateLimited, WireError
from subnet.http.retry_after import retry_after
from tests.chat_node import heard_from, heard_of, node
from tests.provider import Provider, Script, chunk, event, events, raw, refuse, whole

# More digits than a float holds, or a whole number in decimal text.
DIGITS = "9" * 4000
DAY = 86400.0


def call(**function: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": 0, "function": {"name": "f", **function}}]})


async def test_more_calls_than_any_model_makes_are_refused() -> None:
    """At once: looking each of so many up would take this process for hours."""
    calls = [{"index": number, "function": {"name": "f"}} for number in range(50_000)]
    with pytest.raises(WireError, match="more than 1024 tool calls"):
        await heard_from(events(chunk({"tool_calls": calls}), chunk(finish="tool_calls")))


async def test_arguments_may_be_nested_as_deeply_as_they_like() -> None:
    """They are a text."""
    heard = await heard_from(events(call(arguments="[" * 100_000), call(arguments="{}"), chunk(finish="tool_calls")))
    assert heard.calls() == [("f", "[" * 100_000 + "{}")]


@pytest.mark.parametrize("number", [f"-{DIGITS}", str(1 << 53), "true", '"-1"', "null"])
async def test_logprobs_that_are_no_numbers_are_an_error(number: str) -> None:
    """An integer may be larger than all floats."""
    entry = f'{{"token": "a", "logprob": {number}}}'
    broken = f'{{"choices": [{{"index": 0, "delta": {{"content": "a"}}, "logprobs": {{"content": [{entry}]}}}}]}}'
    with pytest.raises(WireError, match="a token has no finite logprob"):
        await heard_from(events(broken), logprobs=True)


async def test_a_logprob_may_be_a_whole_number() -> None:
    """As of a token that is sure."""
    logprobs = {"content": [{"token": "a", "logprob": 0}, {"token": "b", "logprob": -9999}]}
    heard = await heard_from(events(chunk({"content": "ab"}, logprobs=logprobs), chunk(finish="stop")), logprobs=True)
    assert [entry["logprob"] for entry in heard.logprobs()] == [0.0, -9999.0]


@pytest.mark.parametrize("make", [lambda error: events({"error": error}), lambda error: whole({"error": error}, 500)])
@pytest.mark.parametrize("code", ["9" * 5000, "٤٢٩" * 50, 10**30, -400, 429.5, [429], {}, True, None])
async def test_any_code_of_an_error_is_read(make: Callable[[Any], Script], code: Any) -> None:
    """Of many digits, of none, of another kind."""
    with pytest.raises(NodeError, match="no such luck"):
        await heard_from(make({"message": "no such luck", "code": code}))


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
def test_nobody_is_left_alone_for_longer_than_a_day(headers: dict[str, str], body: Any, text: str) -> None:
    """Whatever is said: a server that talks nonsense once is not lost for good."""
    assert retry_after(headers, body, text) == DAY


@pytest.mark.parametrize("told", ["inf", "nan", "-5", "Fri, 99 Foo 9999", "soon", ""])
async def test_a_rate_limit_without_a_sane_time_is_one(told: str) -> None:
    """With none, or none in the past."""
    with pytest.raises(RateLimited) as refused:
        await heard_from(refuse(429, retry_after=told))
    assert refused.value.retry_after in (None, 0.0)


async def test_an_answer_without_an_end_has_one() -> None:
    """The bytes of an answer are bounded, not only those of an event."""
    piece = event(chunk({"content": "x" * (1 << 20)}))
    with pytest.raises(WireError, match="sent more than"):
        await heard_from(raw(*[piece] * 260))


@pytest.mark.parametrize("count", [-1, 1 << 31, 10**30, 7.0, "7", True, None, [7]])
async def test_usage_that_cannot_be_is_none(count: Any) -> None:
    """It would spoil all sums that it goes into."""
    used = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count}}
    heard = await heard_from(events(chunk({"content": "a"}), chunk(finish="stop"), used))
    assert (heard.text(), heard.usage) == ("a", None)


async def test_a_key_is_hidden_wherever_a_server_repeats_it() -> None:
    """In the sentence, and in the name of the parameter that it finds wrong."""
    key = "sk-a-secret-of-somebody"
    refusal = refuse(400, f"not with {key}", param=f"Bearer {key}")
    async with Provider(refusal) as provider, node(provider.url, api_key=key) as protocol:
        with pytest.raises(InvalidRequest) as refused:
            await heard_of(protocol)
    assert key not in f"{refused.value.message} {refused.value.param}"
