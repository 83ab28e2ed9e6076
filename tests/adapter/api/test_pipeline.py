"""The stage that every endpoint passes: model names, fallbacks, errors and accounting are the same on all of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet.errors import EngineFailed
from subnet.node_info import Capabilities
from tests.fakes import ASK, gateway, saying

CAN = Capabilities(embeddings=True, prompt_logprobs=True, top_logprobs=5)
MESSAGES = ASK["messages"]
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/chat/completions/render": {"messages": MESSAGES},
    "/v1/messages": {"messages": MESSAGES},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [72]},
}
# Endpoints that need a node for each request.
RUN = ["/v1/chat/completions", "/v1/messages", "/v1/completions", "/v1/embeddings"]
# Anthropic's envelope has one of these types in place of a code.
TYPES = {"model_not_found": "not_found_error", "no_node_available": "overloaded_error"}


def check_error(response: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    """Check the error of a response, in the envelope of its dialect. Anthropic's names a parameter in the message."""
    error = response.json()["error"]
    assert response.status_code == status
    if "/messages" in str(response.url):
        assert error["type"] == TYPES.get(code, "invalid_request_error")
        assert param in (None, "model") or f"'{param}'" in error["message"]
    else:
        assert error["code"] == code
        assert param is None or error["param"] == param


def settings(**given: Any) -> Settings:
    return Settings(aliases={"alias": "mock"}, fallbacks={"gone": ("mock",), "broken": ("mock",)}, **given)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_alias_works_on_every_endpoint(path: str) -> None:
    """A request for an alias is answered by the model that the alias stands for."""
    async with gateway(saying("Hi", capabilities=CAN), settings=settings()) as url, httpx.AsyncClient() as client:
        response = await client.post(url + path, json={"model": "alias", **ENDPOINTS[path]})
    assert response.status_code == 200
    assert response.json().get("model", "mock") == "mock"


@pytest.mark.parametrize("path", [path for path in ENDPOINTS if path != "/detokenize"])
async def test_a_fallback_works_on_every_endpoint(path: str) -> None:
    """A request for a model that no node serves is answered by its fallback."""
    async with gateway(saying("Hi", capabilities=CAN), settings=settings()) as url, httpx.AsyncClient() as client:
        response = await client.post(url + path, json={"model": "gone", **ENDPOINTS[path]})
    assert response.status_code == 200
    assert response.json().get("model", "mock") == "mock"


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/detokenize", {"tokens": [72]}),
        ("/v1/completions", {"prompt": [72, 105]}),
        ("/v1/completions", {"prompt": [[72], [105]]}),
        ("/v1/completions", {"prompt": "Hello", "logit_bias": {"72": -100}}),
        ("/v1/embeddings", {"input": [[72, 105]]}),
        ("/v1/chat/completions", {"messages": MESSAGES, "logit_bias": {"72": -100}}),
        ("/v1/chat/completions/render", {"messages": MESSAGES, "stop_token_ids": [72]}),
    ],
)
async def test_token_ids_have_no_fallback(path: str, given: dict[str, Any]) -> None:
    """A request with token ids, which mean something else to another model, gets the error of the requested model."""
    async with gateway(saying("Hi", capabilities=CAN), settings=settings()) as url, httpx.AsyncClient() as client:
        response = await client.post(url + path, json={"model": "gone", **given})
        served = await client.post(url + path, json={"model": "alias", **given})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_node_available")
    assert served.status_code not in (404, 503)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("name", ["dangling", "nowhere-else"])
async def test_the_default_model_does_not_replace_an_alias_or_a_fallback(path: str, name: str) -> None:
    """The default model answers for unknown names only: not for the unserved target of an alias, nor for an unserved
    fallback. The endpoints and the list of models agree."""
    given = Settings(
        aliases={"dangling": "ghost"}, fallbacks={"nowhere-else": ("ghost", "ghost-2")}, default_model="mock"
    )
    async with gateway(saying("Hi", capabilities=CAN), settings=given) as url, httpx.AsyncClient() as client:
        response = await client.post(url + path, json={"model": name, **ENDPOINTS[path]})
        unknown = await client.post(url + path, json={"model": "unheard-of", **ENDPOINTS[path]})
        listed = await client.get(f"{url}/v1/models/{name}")
    check_error(response, 503, "no_node_available")
    assert f"'{name}'" in response.json()["error"]["message"]
    assert (unknown.status_code, listed.status_code) == (200, 503)


@pytest.mark.parametrize("path", RUN)
async def test_a_model_that_fails_has_a_fallback(path: str) -> None:
    """A request whose model's nodes all fail is answered by the fallback, on every endpoint that needs nodes."""
    broken = saying("", EngineFailed("out of memory"), peer="broken", model="broken", capabilities=CAN)
    if path == "/v1/embeddings":
        broken = saying("", peer="broken", model="broken", capabilities=Capabilities(embeddings=False))
    async with gateway(broken, saying("Hi", capabilities=CAN), settings=settings()) as url:
        async with httpx.AsyncClient() as client:
            response = await client.post(url + path, json={"model": "broken", **ENDPOINTS[path]})
    if path == "/v1/embeddings":
        # A request for embeddings from a model without them is invalid, so it has no fallback.
        assert (response.status_code, response.json()["error"]["param"]) == (400, "model")
        return
    assert (response.status_code, response.json()["model"]) == (200, "mock")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_unknown_model_is_the_same_error_on_every_endpoint(path: str) -> None:
    """A model that nobody serves is a 404 that names the parameter."""
    async with gateway(saying("Hi", capabilities=CAN), settings=settings()) as url, httpx.AsyncClient() as client:
        response = await client.post(url + path, json={"model": "nowhere", **ENDPOINTS[path]})
    check_error(response, 404, "model_not_found", "model")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_every_endpoint_is_counted(path: str) -> None:
    """Metrics have every request by its endpoint, and the tokens of those that needed a node."""
    async with gateway(saying("Hi", capabilities=CAN)) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(path, json={"model": "mock", **ENDPOINTS[path]})
        text = (await client.get("/metrics")).text
    assert response.status_code == 200
    assert f'adapter_requests_total{{endpoint="{path}",status="200"}} 1.0' in text
    needs_node = path in RUN
    assert ('adapter_answers_total{model="mock"} 1.0' in text) == needs_node
    assert ("x-subnet-nodes" in response.headers) == needs_node
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_bodies_are_repaired_on_every_endpoint(path: str) -> None:
    """A byte order mark and escaped halves of surrogate pairs do not fail a request, and a header names them."""
    body = b"\xef\xbb\xbf" + json.dumps({"model": "mock", "user\ud83d": "\ude00", **ENDPOINTS[path]}).encode()
    async with gateway(saying("Hi", capabilities=CAN)) as url, httpx.AsyncClient() as client:
        response = await client.post(url + path, content=body)
    assert response.status_code == 200
    assert response.headers["x-body-repaired"] == "byte-order-mark, unpaired-surrogates"
    assert response.headers["x-ignored-params"] == "user?"


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_unknown_parameters_are_reported_on_every_endpoint(path: str) -> None:
    """A parameter that no endpoint knows is named in a header, or refused with `strict`."""
    body = {"model": "mock", "zeta": 1, **ENDPOINTS[path]}
    async with gateway(saying("Hi", capabilities=CAN)) as url, httpx.AsyncClient() as client:
        assert (await client.post(url + path, json=body)).headers["x-ignored-params"] == "zeta"
    async with gateway(saying("Hi", capabilities=CAN), settings=settings(strict=True)) as url:
        async with httpx.AsyncClient() as client:
            refused = await client.post(url + path, json=body)
    check_error(refused, 400, "unknown_parameter", "zeta")


async def test_scoring_counts_its_nodes() -> None:
    """The logprobs of an echoed prompt are computed by a node, which the headers and metrics report."""
    body = {"model": "mock", "prompt": "Hello", "echo": True, "logprobs": 1, "max_tokens": 0}
    async with gateway(saying("Hi", capabilities=CAN)) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/completions", json=body)
        text = (await client.get("/metrics")).text
    assert response.headers["x-subnet-nodes"]
    assert 'adapter_answers_total{model="mock"} 1.0' in text
