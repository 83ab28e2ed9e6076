"""One model on both lanes: subnet nodes, with a server that accepts only messages behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet import MockProtocol
from subnet.errors import EngineFailed, NodeBusy, NodeLost
from subnet.node_info import Placement
from subnet.protocols.mock import Step
from tests.fakes import ASK, events_of, gateway
from tests.provider import COMPLETIONS, TEXT, Provider, Script, answer, as_text, embeddings_of, error_response, pieces
from tests.test_providers import CHAT, LIMITS, ask, node_of

AUDIO = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


class NamedNode(MockProtocol):
    """A node for which the settings name the model, as they do for the server: else the name has one lane only."""

    def placement(self, model: str) -> Placement:
        return Placement(named=True)


def saying(text: str, *more: Step, peer: str, **options: Any) -> NamedNode:
    return NamedNode([*text.encode(), *more], peer=peer, **options)


@asynccontextmanager
async def gateway_to_both(token: MockProtocol, provider: Provider, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(provider)
        options = Settings(access_log=False, **settings)
        # The server comes first in the settings, and is asked last all the same.
        url = await stack.enter_async_context(gateway(node_of(provider), token, settings=options, limits=LIMITS))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
        while {row["state"] for row in (await http.get("/nodes")).json()["nodes"]} != {"healthy"}:
            pass
        yield http


async def test_the_token_lane_is_preferred() -> None:
    """While nodes on the token lane are available, they get all requests, and the model is listed once."""
    token, provider = saying("From tokens.", peer="tokens"), Provider(answer("From messages."))
    async with gateway_to_both(token, provider) as http:
        for stream in (True, False) * 3:
            assert await ask(http, stream) == (200, "From tokens.", None)
        assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == ["mock"]
    assert not provider.chat_requests


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("error", [NodeLost("gone"), EngineFailed("out of memory"), NodeBusy("full")])
async def test_the_chat_lane_is_asked_when_the_token_lane_fails(error: Exception, stream: bool) -> None:
    token, provider = saying("", error, peer="tokens"), Provider(answer("From messages."))
    async with gateway_to_both(token, provider) as http:
        assert await ask(http, stream) == (200, "From messages.", None)


async def test_a_begun_answer_passes_to_the_chat_lane_only_if_it_repeats_it() -> None:
    """The words of the token lane are compared with those of the other server."""
    begun = TEXT[:20]
    token = saying(begun, EngineFailed("killed"), peer="tokens")
    async with gateway_to_both(token, Provider(answer(TEXT))) as http:
        assert await ask(http, stream=True) == (200, TEXT, None)
    token = saying(begun, EngineFailed("killed"), peer="tokens")
    async with gateway_to_both(token, Provider(answer("Something else."))) as http:
        assert await ask(http, stream=True) == (200, begun, "node_failed")


@pytest.mark.parametrize(
    ("path", "prompt", "answered"),
    [
        (CHAT, ASK, answer(TEXT)),
        (COMPLETIONS, {"model": "mock", "prompt": "Hi", "max_tokens": 50}, as_text(answer(TEXT))),
    ],
)
async def test_what_a_passed_on_answer_tells(path: str, prompt: dict[str, Any], answered: Script) -> None:
    """The comment names the nodes of both lanes, and the usage so far is that of the lane that is now at it."""
    token = saying(TEXT[:20], EngineFailed("killed"), peer="tokens")
    provider = Provider(answered, completions=[answered])
    options = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    async with gateway_to_both(token, provider) as http:
        content = (await http.post(path, json=prompt | options)).content
    *chunks, done = events_of(content)
    (comment,) = (line for line in content.decode().splitlines() if line.startswith(": nodes"))
    nodes = comment.removeprefix(": nodes ").partition(";")[0].split(", ")
    assert (done, nodes[0], len(set(nodes))) == ("[DONE]", "tokens", 2)
    *_, last, final = (part["usage"]["completion_tokens"] for part in chunks)
    assert last == final == len(pieces(TEXT))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_parameter_of_the_chat_lane_excludes_the_token_lane(stream: bool) -> None:
    """The token lane cannot honour `audio`, so the other server gets the request, with the parameter."""
    token, provider = saying("From tokens.", peer="tokens"), Provider(answer("From messages."))
    async with gateway_to_both(token, provider) as http:
        assert await ask(http, stream, **AUDIO) == (200, "From messages.", None)
    assert provider.chat_requests[0].body["audio"] == AUDIO["audio"]
    assert not token.requests


async def test_a_parameter_of_the_token_lane_excludes_the_chat_lane() -> None:
    token, provider = saying("", EngineFailed("killed"), peer="tokens"), Provider(answer("From messages."))
    async with gateway_to_both(token, provider) as http:
        assert await ask(http, stream=False, return_token_ids=True) == (503, "", "node_failed")
    assert not provider.chat_requests


async def test_a_request_that_neither_lane_accepts() -> None:
    """The client gets the error of the token lane, and fallbacks are not asked, as the request is at fault."""
    token, provider = saying("From tokens.", peer="tokens"), Provider(error_response(400))
    async with gateway_to_both(token, provider, fallbacks={"mock": ("other",)}) as http:
        response = await http.post(CHAT, json=ASK | {"temperature": 3})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "temperature")
    assert len(provider.chat_requests) == 1


async def test_the_chat_lane_fails_where_the_token_lane_refuses() -> None:
    """The failure says more than the refusal: the request itself was right."""
    token, provider = saying("From tokens.", peer="tokens"), Provider(error_response(500))
    async with gateway_to_both(token, provider) as http:
        assert await ask(http, stream=False, **AUDIO) == (503, "", "node_failed")


async def test_embeddings_come_from_the_lane_that_has_them() -> None:
    """Nodes without embeddings exclude the token lane, which answers text completions."""
    token = saying("From tokens.", peer="tokens")
    provider = Provider(routes={"/v1/embeddings": embeddings_of([0.5, 1.0])})
    async with gateway_to_both(token, provider) as http:
        embedded = await http.post("/v1/embeddings", json={"model": "mock", "input": "Hi"})
        completed = await http.post("/v1/completions", json={"model": "mock", "prompt": "Hi", "max_tokens": 50})
    assert embedded.json()["data"][0]["embedding"] == [0.5, 1.0]
    assert completed.json()["choices"][0]["text"] == "From tokens."
