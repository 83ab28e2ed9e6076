"""Exceptions that the openai package raises for the gateway's errors."""

from __future__ import annotations

import pytest
from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
)

from adapter.config import Settings
from subnet.errors import NodeLost
from tests.clients.asking import ask
from tests.fakes import ASK, gateway, saying


def connected(url: str, key: str = "any") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url + "/v1", api_key=key, max_retries=0)


def test_errors_are_typed(client: OpenAI) -> None:
    """An unknown model raises NotFoundError, and a prompt that is too long BadRequestError, with OpenAI's codes."""
    with pytest.raises(NotFoundError) as missing:
        client.chat.completions.create(**ask(model="gpt-nowhere"))
    assert missing.value.code == "model_not_found"
    long = [{"role": "user", "content": "word " * 20_000}]
    with pytest.raises(BadRequestError) as exceeded:
        client.chat.completions.create(**ask(messages=long))
    assert exceeded.value.code == "context_length_exceeded"


def test_a_wrong_parameter(client: OpenAI) -> None:
    """BadRequestError has the place of the mistake and the request id, streamed or not."""
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.create(
                **ask(messages=[{"role": "user", "content": [{"type": "x"}]}], stream=stream)
            )
        assert refused.value.param == "messages[0].content[0].type"
        assert refused.value.type == "invalid_request_error"
        assert refused.value.request_id


async def test_keys() -> None:
    """An invalid API key raises AuthenticationError; a valid one is accepted."""
    settings = Settings(access_log=False, api_keys=("sk-right",))
    async with gateway(saying("Hi"), settings=settings) as url:
        async with connected(url, "sk-right") as client:
            assert (await client.chat.completions.create(**ASK)).choices[0].message.content == "Hi"
        async with connected(url, "sk-wrong") as client:
            with pytest.raises(AuthenticationError) as refused:
                await client.chat.completions.create(**ASK)
    assert refused.value.code == "invalid_api_key"


async def test_no_node_available() -> None:
    """Without a node, or if it fails before its first token, InternalServerError is raised with Retry-After."""
    for nodes in ((), (saying("", NodeLost("gone")),)):
        async with gateway(*nodes) as url, connected(url) as client:
            with pytest.raises(InternalServerError) as nobody:
                await client.chat.completions.create(**ASK)
        assert nobody.value.status_code == 503
        assert int(nobody.value.response.headers["retry-after"]) >= 1


async def test_a_stream_that_fails() -> None:
    """If the node is lost during a stream, the client yields the text so far and then raises APIError."""
    async with gateway(saying("Hi", NodeLost("gone"))) as url, connected(url) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        said = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
        with pytest.raises(APIError) as cut:
            await anext(stream)
    assert "".join(said) == "Hi"
    assert cut.value.message
