"""Requests for more tokens than the context has room for beside the prompt."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet.errors import EngineFailed
from subnet.protocols.mock import MockProtocol
from tests.fakes import ASK, PROMPT, events_of, gateway, saying

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HEADER = "x-max-tokens-bounded"
MANY = {"max_tokens": 32_000}
BOUNDED = 64 - len(PROMPT)


def small(text: str = "Hi", peer: str = "small", context_length: int = 64) -> MockProtocol:
    return saying(text, peer=peer, context_length=context_length)


def large() -> MockProtocol:
    return saying("Hello", model="large", peer="large", context_length=100_000)


async def post(path: str, body: dict[str, Any], *nodes: MockProtocol, **settings: Any) -> httpx.Response:
    chosen = Settings(access_log=False, **settings)
    async with gateway(*nodes, settings=chosen) as url, httpx.AsyncClient(base_url=url) as http:
        while (await http.get("/nodes")).text.count('"healthy"') < 2 * len(nodes):
            pass
        return await http.post(path, json=body)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_the_largest_number_of_a_client(path: str) -> None:
    """Some clients send the largest integer that they have; it is bounded like any other."""
    body = ASK if path == CHAT else {"model": "mock", "prompt": "Hello"}
    for number in (2**31 - 1, 2**31, 2**53 - 1, 2**63 - 1):
        response = await post(path, body | {"max_tokens": number}, small())
        assert response.status_code == 200
        assert int(response.headers[HEADER]) < 64
    assert (await post(path, body | {"max_tokens": 2**63}, small())).status_code == 400


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_bounded_by_the_context(stream: bool, name: str) -> None:
    """Agents request 32,000 tokens of any model. The node gets the rest of the context, and a header says so."""
    node = small("x" * 100)
    response = await post(CHAT, ASK | {"stream": stream, name: 32_000}, node)
    assert (response.status_code, response.headers[HEADER]) == (200, str(BOUNDED))
    chunks = events_of(response.content)[:-1] if stream else [response.json()]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    [request] = node.requests
    assert request.sampling.max_tokens == BOUNDED


async def test_no_header_without_a_bound() -> None:
    """A request that fits, or has no maximum, has no such header."""
    for fields in ({}, {"max_tokens": BOUNDED}):
        assert HEADER not in (await post(CHAT, ASK | fields, small())).headers


async def test_the_minimum_is_bounded_too() -> None:
    """Load generators set `min_tokens` to the same number, which no engine takes beyond the maximum."""
    node = small("x" * 100)
    body = ASK | MANY | {"min_tokens": 32_000, "ignore_eos": True}
    assert (await post(CHAT, body, node)).status_code == 200
    [request] = node.requests
    assert (request.sampling.min_tokens, request.sampling.max_tokens) == (BOUNDED, BOUNDED)


@pytest.mark.parametrize("stream", [False, True])
async def test_text_completions(stream: bool) -> None:
    """Each prompt is bounded by itself, and the header has the lowest bound."""
    node = small("x" * 100)
    body = {"model": "mock", "prompt": ["a" * 10, "b" * 20], "stream": stream, "max_tokens": 50}
    response = await post(TEXT, body, node)
    assert (response.status_code, response.headers[HEADER]) == (200, "44")
    assert sorted(request.sampling.max_tokens or 0 for request in node.requests) == [44, 50]


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_refused_by_setting(path: str) -> None:
    """With the setting, a request is refused as OpenAI does; a prompt that is too long always is."""
    body = MANY | (ASK if path == CHAT else {"model": "mock", "prompt": "Hello"})
    error = (await post(path, body, small(), max_tokens_overflow="refuse")).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")
    error = (await post(path, body, small(context_length=4))).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages" if path == CHAT else "prompt")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fallback_with_room_is_asked_first(stream: bool) -> None:
    """A fallback that has room for all tokens answers, and nothing is bounded."""
    node = small()
    response = await post(CHAT, ASK | MANY | {"stream": stream}, node, large(), fallbacks={"mock": ("large",)})
    assert (response.status_code, node.requests) == (200, [])
    assert HEADER not in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_the_model_with_the_most_room_answers(stream: bool) -> None:
    """If no model has room for all tokens, the one with the most room answers; of equal ones, the first."""
    node, middle = small(), saying("Hello", model="middle", peer="middle", context_length=1_000)
    body = ASK | {"max_tokens": 200_000, "stream": stream}
    response = await post(CHAT, body, node, middle, large(), fallbacks={"mock": ("middle", "large")})
    assert response.headers[HEADER] == str(100_000 - len(PROMPT))
    assert (node.requests, middle.requests) == ([], [])
    same = saying("Hello", model="same", peer="same", context_length=64)
    response = await post(CHAT, body, node, same, fallbacks={"mock": ("same",)})
    assert response.headers[HEADER] == str(BOUNDED)
    assert (len(node.requests), same.requests) == (1, [])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fallback_with_room_that_fails(stream: bool) -> None:
    """If the fallback with room fails, the requested model answers with what it has room for."""
    broken = MockProtocol([EngineFailed("out of memory")], model="large", peer="large", context_length=100_000)
    response = await post(CHAT, ASK | MANY | {"stream": stream}, small(), broken, fallbacks={"mock": ("large",)})
    assert (response.status_code, response.headers[HEADER]) == (200, str(BOUNDED))


async def test_the_longest_context_of_all_nodes_counts() -> None:
    """The bound is that of the node with the longest context, which gets the request."""
    node, longer = small(), small("x" * 100, peer="longer", context_length=80)
    response = await post(CHAT, ASK | MANY, node, longer)
    assert response.headers[HEADER] == str(80 - len(PROMPT))
    assert ([len(one.requests) for one in (node, longer)]) == [0, 1]
