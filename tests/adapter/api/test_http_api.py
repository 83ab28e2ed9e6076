"""The gateway's HTTP API when nothing fails."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from time import time
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from adapter.api.common.access_log import logger as access_logger
from adapter.api.openapi import document
from adapter.api.routes import ROUTES
from adapter.config import Settings
from adapter.errors import ErrorResponse
from subnet.errors import NodeLost
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol
from subnet.protocols.mock_chat import MockChatProtocol
from tests.fakes import ASK, PROMPT, events_of, gateway, saying

CHAT = "/v1/chat/completions"
MESSAGES: Any = ASK["messages"]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    node = saying("Hi ö", model="org/mock", peer="org")
    async with gateway(saying("Hi ö"), node) as url, httpx.AsyncClient(base_url=url) as http:
        yield http


async def test_answer(client: httpx.AsyncClient) -> None:
    """A chat completion has every key that OpenAI's schema requires."""
    response = await client.post(CHAT, json=ASK)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.pop("id").startswith("chatcmpl-")
    assert abs(answer.pop("created") - time()) < 60
    assert answer.pop("system_fingerprint").startswith("fp_")
    assert answer == {
        "object": "chat.completion",
        "model": "mock",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi ö", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": len(PROMPT),
            "completion_tokens": 5,
            "total_tokens": len(PROMPT) + 5,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_stream(client: httpx.AsyncClient) -> None:
    """A stream is framed as OpenAI's, and all its chunks have the same id, time, model and fingerprint."""
    response = await client.post(CHAT, json={**ASK, "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    *chunks, done = events_of(response.content)
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-2]] == ["H", "i", " ", "ö"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"],
)
async def test_any_content_type(client: httpx.AsyncClient, content_type: str | None) -> None:
    """A body is parsed as JSON whatever its content type."""
    headers = {"content-type": content_type} if content_type else {}
    response = await client.post(CHAT, content=json.dumps(ASK).encode(), headers=headers)
    assert response.status_code == 200


async def test_chunked_body(client: httpx.AsyncClient) -> None:
    """A request body may be chunked, without a content length."""

    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(ASK).encode():
            yield bytes((byte,))

    assert (await client.post(CHAT, content=pieces())).status_code == 200


async def test_unknown_parameters(client: httpx.AsyncClient) -> None:
    """Unknown parameters are listed in a response header, in which special characters are replaced."""
    response = await client.post(CHAT, json={**ASK, "zeta": 1, "b\r\nx: y": 2, "user": "me"})
    assert response.headers["x-ignored-params"] == "b??x??y, zeta"
    streamed = await client.post(CHAT, json={**ASK, "stream": True, "zeta": 1})
    assert streamed.headers["x-ignored-params"] == "zeta"
    assert "x-ignored-params" not in (await client.post(CHAT, json=ASK)).headers


async def test_long_names_of_ignored_parameters(client: httpx.AsyncClient) -> None:
    """The header that names ignored parameters is at most 1 KiB, and shortens long names."""
    response = await client.post(CHAT, json={**ASK, **{letter * 5000: 1 for letter in "uvwxyz"}})
    assert response.headers["x-ignored-params"].split(", ") == ["u" * 256, "v" * 256, "w" * 256, "..."]


async def test_models(client: httpx.AsyncClient) -> None:
    """/v1/models lists all served models, and each is found by its id, which may contain slashes."""
    models = (await client.get("/v1/models")).json()
    assert models["object"] == "list"
    assert {model["id"] for model in models["data"]} == {"mock", "org/mock"}
    for model in models["data"]:
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model
    assert (await client.get("/v1/models/org%2Fmock")).json()["id"] == "org/mock"


async def test_models_without_a_chat_template() -> None:
    """/v1/models says which models have no chat template; for those whose server applies it, this is not known."""
    nodes = (
        MockProtocol(model="chat", peer="a", chat_template="{{ messages[0].content }}"),
        MockProtocol(model="base", peer="b"),
        MockChatProtocol(models=("elsewhere",), peer="c"),
    )
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as client:
        models: list[dict[str, Any]] = []
        while len(models) < len(nodes):
            models = (await client.get("/v1/models")).json()["data"]
    assert {model["id"]: model["has_chat_template"] for model in models} == {
        "chat": True,
        "base": False,
        "elsewhere": None,
    }


async def test_health(client: httpx.AsyncClient) -> None:
    """/healthz, /readyz and /nodes report the process, the models and the nodes."""
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ok", "models": ["mock", "org/mock"]}
    nodes = (await client.get("/nodes")).json()["nodes"]
    assert [(node["peer"], node["model"], node["fault"]) for node in nodes] == [
        ("mock", "mock", None),
        ("org", "org/mock", None),
    ]


async def test_not_ready() -> None:
    """A gateway without nodes is alive but not ready."""
    async with gateway() as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthz")).status_code == 200
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/healthz", CHAT, "/nowhere"])
async def test_request_id(client: httpx.AsyncClient, path: str) -> None:
    """Every response has a request id: the client's own if it is valid, else a new one."""
    for stream in (False, True):
        ask = {**ASK, "stream": stream}
        method = "POST" if path == CHAT else "GET"
        mine = await client.request(method, path, json=ask, headers={"x-request-id": "my-id_1.2"})
        assert mine.headers.get_list("x-request-id") == ["my-id_1.2"]
        for given in ("a" * 129, "a b", ""):
            other = await client.request(method, path, json=ask, headers={"x-request-id": given})
            assert other.headers["x-request-id"].startswith("req_")
            assert int(other.headers["openai-processing-ms"]) >= 0


async def test_head_and_options(client: httpx.AsyncClient) -> None:
    """HEAD returns the headers of GET without a body; OPTIONS lists the allowed methods."""
    head = await client.head("/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    options = await client.options(CHAT)
    assert options.status_code == 204
    assert options.headers["allow"] == "POST, OPTIONS"


async def test_openai_client() -> None:
    """OpenAI's client reads whole answers, streams, usage, request ids and the model list."""
    async with gateway(saying("Hi ö")) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        whole = await client.chat.completions.create(model="mock", messages=MESSAGES)
        assert whole.choices[0].message.content == "Hi ö"
        assert (whole._request_id or "").startswith("req_")
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 5
        text, usage = "", None
        async for chunk in await client.chat.completions.create(
            model="mock", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage or usage
        assert text == "Hi ö"
        assert usage == whole.usage
        assert [model.id async for model in client.models.list()] == ["mock"]


async def test_openai_accumulator() -> None:
    """OpenAI's client accumulates the stream to one assistant message."""
    async with (
        gateway(saying("Hi ö")) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client,
        client.chat.completions.stream(model="mock", messages=MESSAGES) as stream,
    ):
        final = await stream.get_final_completion()
    assert (final.choices[0].message.role, final.choices[0].message.content) == ("assistant", "Hi ö")


async def test_cors() -> None:
    """Pages from the configured origins may send requests, and can read the request id and errors."""
    settings = Settings(cors_origins=("https://chat.example",), access_log=False)
    headers = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    async with gateway(saying("Hi"), settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        asked = await client.options(CHAT, headers=headers)
        assert asked.headers["access-control-allow-origin"] == "https://chat.example"
        answer = await client.post(CHAT, json=ASK, headers=headers)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        refused = await client.post(CHAT, json={}, headers=headers)
        assert refused.headers["access-control-allow-origin"] == "https://chat.example"


async def test_access_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each request is logged as one line of JSON, with its usage or its error."""
    caplog.set_level(logging.INFO, access_logger.name)
    async with gateway(saying("Hi"), settings=Settings()) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post(CHAT, json={**ASK, "stream": True}, headers={"x-request-id": "mine"})
        await client.post(CHAT, json={**ASK, "temperature": "hot"})
        await client.get("/nowhere")
    first, wrong, second = (json.loads(line.message) for line in caplog.records if line.name == access_logger.name)
    assert first.pop("ms") > 0
    assert first == {
        "request": "mine",
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "model": "mock",
        "nodes": ["mock"],
        "prompt_tokens": len(PROMPT),
        "completion_tokens": 2,
    }
    assert (wrong["status"], wrong["error"], wrong["param"]) == (400, "invalid_type", "temperature")
    assert (second["path"], second["status"]) == ("/nowhere", 404)


async def test_openapi(client: httpx.AsyncClient) -> None:
    """The OpenAPI document is served, and all its references resolve."""
    served = (await client.get("/openapi.json")).json()
    assert served == json.loads(json.dumps(document(ROUTES)))

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    names = {reference.removeprefix("#/components/schemas/") for reference in references(served)}
    assert names <= served["components"]["schemas"].keys()
    chat = served["paths"][CHAT]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ChatCompletionRequest"
    }
    assert served["components"]["schemas"]["ChatCompletionRequest"]["required"] == ["model", "messages"]
    assert ErrorResponse.__name__ in names


async def test_openapi_describes_every_route() -> None:
    """Every endpoint of the table can be called, and the OpenAPI document describes it."""
    asked: dict[str, dict[str, Any]] = {
        "/v1/completions": {"model": "mock", "prompt": "Hello"},
        "/v1/embeddings": {"model": "mock", "input": "Hello"},
        "/detokenize": {"tokens": [72]},
    }
    node = saying("Hi", capabilities=Capabilities(embeddings=True))
    described = document(ROUTES)["paths"]
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for route in ROUTES:
            path = route.path.replace("{model}", "mock")
            response = await client.request(route.method, path, json=asked.get(path, ASK))
            assert response.status_code == 200, path
            assert described[route.path][route.method.lower()]["operationId"] == route.id


async def test_headers_name_the_nodes() -> None:
    """Headers name the nodes that served a request; a stream that moved to another node names all of them in a
    comment.
    """
    bad, good = saying("He", NodeLost("gone"), peer="bad"), saying("Hello", peer="good")
    async with gateway(bad, good) as url, httpx.AsyncClient() as client:
        streamed = await client.post(url + "/v1/chat/completions", json={**ASK, "stream": True})
        assert streamed.headers["x-subnet-nodes"] == "bad"
        assert ": nodes bad, good\n\ndata: [DONE]\n\n" in streamed.text
        whole = await client.post(url + "/v1/chat/completions", json=ASK)
        assert whole.headers["x-subnet-switches"] in "01"
        assert whole.json()["choices"][0]["message"]["content"] == "Hello"


async def test_a_node_with_an_odd_name() -> None:
    """Special characters in a node's name are replaced in headers, streamed or not."""
    async with gateway(saying("Hi", peer="a\nb\u00e4")) as url, httpx.AsyncClient(base_url=url) as http:
        for stream in (False, True):
            response = await http.post(CHAT, json={**ASK, "stream": stream})
            assert (response.status_code, response.headers["x-subnet-nodes"]) == (200, "a?b?")


async def test_metrics() -> None:
    """/metrics counts requests, failovers and tokens, and has the nodes by state."""
    bad, good = saying("He", NodeLost("gone"), peer="bad"), saying("Hello", peer="good")
    async with gateway(bad, good) as url, httpx.AsyncClient(base_url=url) as http:
        await http.post(CHAT, json={**ASK, "stream": True})
        await http.post(CHAT, json={})
        text = (await http.get("/metrics")).text
    assert 'adapter_requests_total{endpoint="/v1/chat/completions",status="400"} 1.0' in text
    assert 'adapter_switches_total{model="mock"} 1.0' in text
    assert 'adapter_tokens_total{kind="completion",model="mock"} 5.0' in text
    assert "adapter_nodes{" in text


async def test_all_nodes_full() -> None:
    """If all nodes are full, the 503 response names no node and is counted, but no answer is."""
    async with gateway(saying("Hi", capacity=0)) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post(CHAT, json=ASK)
        text = (await http.get("/metrics")).text
    assert response.status_code == 503
    assert not [name for name in response.headers if name.startswith("x-subnet")]
    assert 'adapter_requests_total{endpoint="/v1/chat/completions",status="503"} 1.0' in text
    assert "adapter_answers_total{" not in text
