"""Requests for more tokens than a server of the chat lane has room for: only its refusal says how many it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from subnet.errors import EngineFailed
from tests.fakes import ASK, events_of
from tests.provider import (
    CHAT,
    COMPLETIONS,
    TEXT,
    Pause,
    Provider,
    RecordedRequest,
    Script,
    answer,
    as_text,
    cut_off,
    error_response,
)
from tests.test_providers import gateway_to, text_of
from tests.test_two_lanes import gateway_to_both, saying

HEADER = "x-max-tokens-bounded"
MANY = {"max_tokens": 32_000}
CONTEXT, PROMPT = 8192, 100
# What is left, after each message: of servers that tell it, and of those that do not.
OPENAI = (
    "This model's maximum context length is {context} tokens. However, you requested {total} tokens ({prompt} in the"
    " messages, {limit} in the completion). Please reduce the length of the messages or completion."
)
SGLANG = (
    "Requested token count exceeds the model's maximum context length of {context} tokens. You requested a total of"
    " {total} tokens: {prompt} tokens from the input messages and {limit} tokens for the completion."
)
ANTHROPIC = "input length and `max_tokens` exceed context limit: {prompt} + {limit} > {context}, decrease input length"
NEW_VLLM = (
    "This model's maximum context length is {context} tokens. However, you requested {limit} output tokens and your"
    " prompt contains at least {fewer} input tokens, for a total of at least {context} tokens."
)
CEREBRAS = "Please reduce the length of the messages or completion."

Limit = int | None


def limit_of(request: RecordedRequest) -> Limit:
    found: Limit = request.body.get("max_completion_tokens") or request.body.get("max_tokens")
    return found


def limits_of(provider: Provider, path: str = CHAT) -> list[Limit]:
    return [limit_of(request) for request in provider.requests_to(path)]


def refusing(
    message: str = OPENAI, then: Script | None = None, *, prompt: int = PROMPT, context: int = CONTEXT
) -> Callable[[RecordedRequest], Script]:
    """Return the script of a server that refuses what exceeds its context, in the words of `message`."""

    def script(request: RecordedRequest) -> Script:
        limit = limit_of(request) or 1
        if prompt + limit <= context:
            return then or answer()
        words = message.format(
            context=context, total=prompt + limit, prompt=prompt, limit=limit, fewer=max(0, context + 1 - limit)
        )
        return error_response(400, words, type="invalid_request_error", code="context_length_exceeded")

    return script


async def ask(http: httpx.AsyncClient, *, stream: bool, **fields: Any) -> httpx.Response:
    return await http.post(CHAT, json=ASK | {"stream": stream} | fields)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("message", [OPENAI, SGLANG, ANTHROPIC])
async def test_an_answer_is_bounded_by_what_the_server_tells(message: str, stream: bool) -> None:
    """A server that tells its context and the tokens of the prompt gets the request again, with what is left."""
    provider = Provider(refusing(message))
    async with gateway_to(provider) as http:
        response = await ask(http, stream=stream, **MANY)
        assert (response.status_code, response.headers[HEADER]) == (200, str(CONTEXT - PROMPT))
        assert limits_of(provider) == [32_000, CONTEXT - PROMPT]
        # What fits is passed on as it is.
        assert HEADER not in (await ask(http, stream=stream, max_tokens=50)).headers
    assert limits_of(provider)[2:] == [50]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("message", [NEW_VLLM, CEREBRAS])
async def test_a_server_that_does_not_tell_its_room(message: str, name: str) -> None:
    """It gets the request without a maximum, for which it uses the rest of its context."""
    provider = Provider(refusing(message))
    async with gateway_to(provider) as http:
        # As many as `min_tokens`, as load generators send it: it would be refused without a maximum.
        response = await ask(http, stream=True, min_tokens=32_000, **{name: 32_000})
    assert (response.status_code, response.headers[HEADER]) == (200, "unknown")
    assert text_of(response) == TEXT
    assert limits_of(provider) == [32_000, None]
    assert "min_tokens" not in provider.chat_requests[1].body


@pytest.mark.parametrize(("message", "requests"), [(OPENAI, 1), (CEREBRAS, 2)])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_prompt_that_does_not_fit(message: str, requests: int, stream: bool) -> None:
    """The refusal reaches the client, that of the request as it was; after numbers that leave nothing, at once."""
    provider = Provider(refusing(message, prompt=9000))
    async with gateway_to(provider) as http:
        response = await ask(http, stream=stream, **MANY)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert HEADER not in response.headers
    assert len(provider.chat_requests) == requests
    if message == OPENAI:
        assert "41000 tokens (9000 in the messages, 32000 in the completion)" in error["message"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_messages_are_bounded_too(stream: bool) -> None:
    """Claude Code requests 32,000 tokens of every model. An answer that fills the context says so, also if it moves."""
    first, second = (Provider(refusing(then=then)) for then in (cut_off(4), answer(finish="length")))
    fields = {"model": ASK["model"], "messages": ASK["messages"], "temperature": 0, "stream": stream, **MANY}
    async with gateway_to(first, second) as http:
        response = await http.post("/v1/messages", json=fields)
    assert (response.status_code, response.headers[HEADER]) == (200, str(CONTEXT - PROMPT))
    assert '"stop_reason":"model_context_window_exceeded"' in response.text
    limits = limits_of(first) + limits_of(second)
    assert limits[0] == 32_000
    assert set(limits[1:]) == {CONTEXT - PROMPT}


async def test_a_limit_of_the_output() -> None:
    """A model may have a maximum of new tokens, whatever the prompt; its context may have room for fewer."""
    too_many = "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you ..."

    def script(request: RecordedRequest) -> Script:
        if (limit_of(request) or 0) > 16384:
            return error_response(400, too_many, type="invalid_request_error", code="invalid_value", param="max_tokens")
        return refusing()(request)

    provider = Provider(script)
    async with gateway_to(provider) as http:
        response = await ask(http, stream=True, **MANY)
        assert response.headers[HEADER] == str(CONTEXT - PROMPT)
    assert limits_of(provider) == [32_000, 16_384, CONTEXT - PROMPT]
    provider = Provider(script)
    async with gateway_to(provider, max_tokens_overflow="refuse") as http:
        error = (await ask(http, stream=True, **MANY)).json()["error"]
    assert (error["message"], error["param"], error["code"]) == (too_many, "max_tokens", "invalid_value")


async def test_a_server_that_never_has_enough() -> None:
    """A server that refuses its own numbers is not asked for ever."""
    provider = Provider(
        lambda request: error_response(400, f"supports at most {(limit_of(request) or 9) - 1} completion tokens")
    )
    async with gateway_to(provider) as http:
        response = await ask(http, stream=False, **MANY)
    assert response.status_code == 400
    assert limits_of(provider) == [32_000, 31_999, 31_998]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_refused_by_setting(stream: bool) -> None:
    """With the setting, the server's refusal is passed on."""
    provider = Provider(refusing())
    async with gateway_to(provider, max_tokens_overflow="refuse") as http:
        response = await ask(http, stream=stream, **MANY)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert len(provider.chat_requests) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_fallback_with_more_room(stream: bool) -> None:
    """A fallback with room for all tokens is asked first, then the one with the most room that works."""
    small, large = Provider(refusing()), Provider(refusing(context=100_000))
    fallbacks = {"a": ("b",)}
    async with gateway_to(small, large, models=("a", "b"), fallbacks=fallbacks) as http:
        response = await http.post(CHAT, json=ASK | MANY | {"model": "a", "stream": stream})
        assert response.status_code == 200
        assert HEADER not in response.headers
        assert (limits_of(small), limits_of(large)) == ([32_000], [32_000])
        response = await http.post(CHAT, json=ASK | {"model": "a", "stream": stream, "max_tokens": 200_000})
        assert response.headers[HEADER] == str(100_000 - PROMPT)
        assert limits_of(small)[1:] == [200_000]
    broken = Provider(error_response(500))
    async with gateway_to(Provider(refusing()), broken, models=("a", "b"), fallbacks=fallbacks) as http:
        response = await http.post(CHAT, json=ASK | MANY | {"model": "a", "stream": stream})
        assert response.headers[HEADER] == str(CONTEXT - PROMPT)


async def test_a_context_that_the_list_of_models_tells() -> None:
    """More than the whole context is not requested, so that the header tells of servers that bound answers, too."""
    models = [{"id": "model", "max_model_len": CONTEXT}]
    provider = Provider(answer(), models=models)
    async with gateway_to(provider) as http:
        assert (await ask(http, stream=True, **MANY)).headers[HEADER] == str(CONTEXT - 1)
    assert limits_of(provider) == [CONTEXT - 1]
    provider, large = Provider(answer(), models=models), Provider(answer())
    async with gateway_to(provider, large, models=("a", "b"), fallbacks={"a": ("b",)}) as http:
        assert HEADER not in (await http.post(CHAT, json=ASK | MANY | {"model": "a"})).headers
    assert (limits_of(provider), limits_of(large)) == ([], [32_000])
    provider = Provider(answer(), models=models)
    async with gateway_to(provider, max_tokens_overflow="refuse") as http:
        assert HEADER not in (await ask(http, stream=True, **MANY)).headers
    assert limits_of(provider) == [32_000]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_text_completions(stream: bool) -> None:
    """Each prompt is bounded by itself, and the header has the lowest bound; in a stream that had begun by then, the
    comment at its end. Text completions always need a maximum.
    """

    def script(request: RecordedRequest) -> Script:
        return refusing(then=as_text(answer()), prompt=len(request.body["prompt"]))(request)

    provider = Provider(completions=[script])
    body = {"model": "mock", "prompt": ["a" * 10, "b" * 20, "c" * 10], "stream": stream, "max_tokens": CONTEXT - 15}
    async with gateway_to(provider) as http:
        response = await http.post(COMPLETIONS, json=body)
    assert response.status_code == 200
    bound = response.headers.get(HEADER) or response.text.partition(f": {HEADER}: ")[2].split()[0]
    assert bound == str(CONTEXT - 20)
    assert sorted(limit or 0 for limit in limits_of(provider, COMPLETIONS)) == [CONTEXT - 20, *[CONTEXT - 15] * 3]
    provider = Provider(completions=[refusing(NEW_VLLM)])
    async with gateway_to(provider) as http:
        assert (await http.post(COMPLETIONS, json=body)).status_code == 400


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_the_bound_holds_after_a_failover(stream: bool) -> None:
    """A node that takes over in the middle gets the bound, too, and the answer is whole."""
    first, second = (Provider(refusing(then=then)) for then in (cut_off(4), answer()))
    async with gateway_to(first, second) as http:
        response = await ask(http, stream=stream, temperature=0, **MANY)
    assert response.headers[HEADER] == str(CONTEXT - PROMPT)
    if stream:
        assert (text_of(response), events_of(response.content)[-1]) == (TEXT, "[DONE]")
    limits = limits_of(first) + limits_of(second)
    assert limits[0] == 32_000
    assert set(limits[1:]) == {CONTEXT - PROMPT}


async def test_the_bound_holds_on_another_model() -> None:
    """A model that had no room for all tokens, and takes over an answer that was bounded lower, gets that bound."""
    token = saying(TEXT[:20], EngineFailed("killed"), peer="tokens", context_length=200)
    provider = Provider(refusing(CEREBRAS))
    async with gateway_to_both(token, provider) as http:
        response = await ask(http, stream=True, temperature=0, **MANY)
    bound = response.headers[HEADER]
    assert (text_of(response), events_of(response.content)[-1]) == (TEXT, "[DONE]")
    assert [str(limit) for limit in limits_of(provider)] == ["32000", bound]
    assert token.requests


async def test_an_answer_without_a_bound_gets_none_later() -> None:
    """A model that has no room for all tokens does not take over an answer that began without a bound."""
    token = saying(TEXT[:20], EngineFailed("killed"), peer="tokens", context_length=100_000)
    provider = Provider(refusing())
    async with gateway_to_both(token, provider) as http:
        response = await ask(http, stream=True, temperature=0, **MANY)
    assert HEADER not in response.headers
    assert events_of(response.content)[-1]["error"]["code"] == "node_failed"
    assert set(limits_of(provider)) == {32_000}


async def test_a_bound_after_an_early_head() -> None:
    """A stream that had to begin before the refusal says so in the comment at its end."""
    refused = asyncio.Event()

    def script(request: RecordedRequest) -> Script:
        done = refusing()(request)
        return Script([*done.steps], done.status, done.headers, before=[Pause(refused)])

    provider = Provider(script)
    async with gateway_to(provider, sse_keep_alive=0.02) as http:
        async with http.stream("POST", CHAT, json=ASK | MANY | {"stream": True}) as response:
            assert HEADER not in response.headers
            refused.set()
            content = (await response.aread()).decode()
    assert f": {HEADER}: {CONTEXT - PROMPT}\n" in content
    assert content.endswith("data: [DONE]\n\n")
