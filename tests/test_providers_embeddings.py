"""Embeddings of providers behind the gateway: what the client gets, and what each provider receives."""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import Any

import httpx
import msgspec
import pytest
from openai import AsyncOpenAI

from adapter.config import Settings
from tests.fakes import ASK
from tests.provider import (
    CHAT,
    EMBEDDINGS,
    Provider,
    RecordedRequest,
    Script,
    connection_reset,
    embeddings_of,
    error_response,
    json_response,
    raw,
    unresponsive,
)
from tests.test_providers import LIMITS, gateway_to, gateway_to_nodes, until_healthy
from tests.test_providers_completions import NO_ENDPOINT

VECTOR = [0.5, -1, 1e-7]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def request(**more: Any) -> dict[str, Any]:
    return {"model": "mock", "input": "Hello", **more}


def json_text(text: str) -> Script:
    return raw(text, headers={"content-type": "application/json"})


async def embed(http: httpx.AsyncClient, **more: Any) -> tuple[int, Any]:
    """Return the status, and the embeddings or the code of the error."""
    response = await http.post(EMBEDDINGS, json=request(**more))
    body = response.json()
    if response.status_code != 200:
        return response.status_code, body["error"]["code"]
    return 200, [one["embedding"] for one in body["data"]]


async def test_requests_and_responses_are_passed_on() -> None:
    """The server gets the body as it came, and the client its response, with the gateway's name of the model."""
    given = request(
        input=["a", "b"], input_type="query", dimensions=3, encoding_format="float", user=None, truncate=None
    )
    whole = embeddings_of(VECTOR, VECTOR, provider="acme")
    provider = Provider(embeddings=[json_response(whole)])
    async with gateway_to(provider) as http:
        response = await http.post(EMBEDDINGS, json=given)
    (sent,) = provider.requests_to(EMBEDDINGS)
    assert sent.body == {
        "model": "model",
        "input": ["a", "b"],
        "input_type": "query",
        "dimensions": 3,
        "encoding_format": "float",
    }
    assert response.json() == whole | {"model": "mock"}
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize(
    ("given", "vectors"),
    [
        ({"input": [1, 2, 3]}, [VECTOR]),
        ({"input": [[1, 2], [3]]}, [VECTOR, VECTOR]),
        ({"input": [{"type": "image", "url": "x"}]}, [VECTOR]),
        ({"encoding_format": "base64"}, [PACKED]),
        ({"encoding_format": "base64", "input": ["a", "b"]}, [PACKED, VECTOR]),
        ({"input": ""}, [VECTOR]),
        ({"input": [12, 34, "string", 56]}, [VECTOR]),
        ({"input": ["string1", [12, 34]]}, [VECTOR, VECTOR]),
        ({"input": {"prompt_string": "string"}}, [VECTOR]),
        ({"input": ["string1", {"content": [{"type": "text", "text": "a"}]}]}, [VECTOR, VECTOR]),
    ],
    ids=repr,
)
async def test_forms(given: dict[str, Any], vectors: list[Any]) -> None:
    """Inputs and embeddings of all forms are passed on."""
    provider = Provider(embeddings=[json_response(embeddings_of(*vectors))])
    async with gateway_to(provider) as http:
        assert await embed(http, **given) == (200, vectors)
    assert provider.requests_to(EMBEDDINGS)[0].body == {"model": "model", "input": "Hello", **given}


def broken(**entry: Any) -> Script:
    """Return a response whose only entry has these members."""
    return json_response(embeddings_of() | {"data": [{"object": "embedding", **entry}]})


def with_member(member: str) -> Script:
    """Return a good response with another member, which is JSON text."""
    return json_text(f"{json.dumps(embeddings_of(VECTOR))[:-1]}, {member}}}")


FAULTS = {
    "NaN": json_text('{"object": "list", "data": [{"index": 0, "embedding": [0.5, NaN]}]}'),
    "infinity": json_text('{"object": "list", "data": [{"index": 0, "embedding": [0.5, -Infinity]}]}'),
    "overflow": json_text('{"object": "list", "data": [{"index": 0, "embedding": [0.5, 1e999]}]}'),
    "null": broken(index=0, embedding=[None]),
    "text": broken(index=0, embedding=["0.5"]),
    "missing index": broken(embedding=[9.0]),
    "negative index": broken(index=-1, embedding=[9.0]),
    "another index": broken(index=1, embedding=[9.0]),
    "no embedding": broken(index=0),
    "empty vector": broken(index=0, embedding=[]),
    "empty text": broken(index=0, embedding=""),
    "not base64": broken(index=0, embedding="not base64!"),
    "an object": broken(index=0, embedding={"float": VECTOR}),
    "too few": json_response(embeddings_of()),
    "too many": json_response(embeddings_of(VECTOR, VECTOR)),
    "no data": json_response({"object": "list", "model": "model"}),
    "data is not a list": json_response(embeddings_of() | {"data": {"0": VECTOR}}),
    "a list": json_response([VECTOR]),
    "a number": json_response(1),
    "not JSON": json_text('{"object": "list", "data": ['),
    "HTML": raw("<html>", headers={"content-type": "text/html"}),
    "deep": json_text("[" * 100_000),
    "deep with half of a surrogate pair": with_member(f'"more": {"[" * 600}"\\ud800"{"]" * 600}'),
    "error with status 200": json_response({"error": {"message": "engine dead", "type": "server_error"}}),
    "500": error_response(500, "oops"),
    "NaN at the server": error_response(500, "failed to encode response: json: unsupported value: NaN"),
    "503": error_response(503, "loading", retry_after=1),
    "429": error_response(429, "slow down", retry_after=60),
    "reset": connection_reset(),
    "silent": unresponsive(),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    """A server that fails, or whose response is malformed, is replaced by another one; the request is sent again."""
    first = Provider(embeddings=[FAULTS[fault]])
    second = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            assert await embed(http) == (200, [VECTOR])
    assert first.requests_to(EMBEDDINGS)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("NaN", 503, "node_failed"),
        ("too few", 503, "node_failed"),
        ("429", 429, "rate_limit_exceeded"),
        ("silent", 504, "model_timeout"),
    ],
)
async def test_nothing_helps(fault: str, status: int, code: str) -> None:
    """If all servers fail, the client gets one error, after a bounded number of attempts."""
    first, second = (Provider(embeddings=[FAULTS[fault]]) for _ in range(2))
    async with gateway_to(first, second) as http:
        assert await embed(http) == (status, code)
    assert len(first.requests_to(EMBEDDINGS) + second.requests_to(EMBEDDINGS)) <= 3


@pytest.mark.parametrize(
    "member",
    [
        '"more": "a\\ud83d"',
        '"more\\ude00": 1',
        '"more": [{"\\udc00": ["\\ud800"]}]',
        '"data": [{"object": "embedding", "index": 0, "embedding": [1.0], "a\\udc00": "\\ud83d"}]',
    ],
)
async def test_halves_of_surrogate_pairs(member: str) -> None:
    """Half of a surrogate pair, which no JSON can have, reaches the client as U+FFFD, wherever it is."""
    async with gateway_to(Provider(embeddings=[with_member(member)])) as http:
        response = await http.post(EMBEDDINGS, json=request())
    assert response.status_code == 200
    others = json.loads(re.sub(r"\\ud[0-9a-f]{3}", "\ufffd", f"{{{member}}}"))
    assert response.json() == embeddings_of(VECTOR) | others | {"model": "mock"}


LARGE = "x" * 300_000


@pytest.mark.parametrize(
    "fault",
    [
        with_member(f'"more": "{LARGE}", "data": [{{"index": 0, "embedding": [NaN]}}]'),
        with_member(f'"more": "{LARGE}", "data": ["\\ud800"]'),
        with_member(f'"more": "{LARGE}", "error": {{"message": "engine dead"}}'),
        json_text(f'{{"more": "{LARGE}", "data": [{{"index": 0, "embedding": [1}}]}}'),
    ],
    ids=["NaN", "text", "error", "not JSON"],
)
async def test_faults_of_large_responses(fault: Script) -> None:
    """A large response, which is processed in a thread, is checked like any other."""
    first, second = Provider(embeddings=[fault]), Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    async with gateway_to(first, second) as http:
        for _ in range(2):
            assert await embed(http) == (200, [VECTOR])
    assert first.requests_to(EMBEDDINGS)


async def test_wrong_key() -> None:
    """A server that rejects the gateway's key is asked once, as it would do so again."""
    first = Provider(embeddings=[error_response(401, "bad key")])
    async with gateway_to(first) as http:
        assert await embed(http) == (502, "node_refused")
    assert len(first.requests_to(EMBEDDINGS)) == 1


async def test_fallback_of_a_full_model() -> None:
    """A fallback model is asked at once if the servers of the model are full, however long others would wait."""
    first = Provider(embeddings=[error_response(529, "busy")])
    second = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    settings = Settings(access_log=False, fallbacks={"mock": ("other",)})
    limits = msgspec.structs.replace(LIMITS, queue_timeout=60.0)
    nodes: list[tuple[Provider, dict[str, Any]]] = [(first, {}), (second, {"name": "other"})]
    async with gateway_to_nodes(*nodes, settings=settings, limits=limits) as http:
        await until_healthy(http)
        assert (await http.post(EMBEDDINGS, json=request())).json()["model"] == "other"


async def test_refusals_of_the_server() -> None:
    """The server judges the parameters: its refusal has its own status, type, param and code, and is not retried."""
    refusal = error_response(422, "no good", type="BadRequestError", param="dimensions", code="bad")
    first, second = Provider(embeddings=[refusal]), Provider(embeddings=[refusal])
    async with gateway_to(first, second) as http:
        response = await http.post(EMBEDDINGS, json=request(dimensions="many"))
    error = {"message": "no good", "type": "BadRequestError", "param": "dimensions", "code": "bad"}
    assert (response.status_code, response.json()["error"]) == (422, error)
    assert len(first.requests_to(EMBEDDINGS) + second.requests_to(EMBEDDINGS)) == 1


@pytest.mark.parametrize("given", [{"input": 1}, {"input": []}, {"input": ["a"] * 2049}])
async def test_requests_that_the_gateway_refuses(given: dict[str, Any]) -> None:
    """Inputs of another type, none, or too many are refused, and no server is asked."""
    provider = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    async with gateway_to(provider) as http:
        response = await http.post(EMBEDDINGS, json=request(**given))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
    assert not provider.requests_to(EMBEDDINGS)


@pytest.mark.parametrize("missing", NO_ENDPOINT, ids=lambda script: str(script.steps[0][:30]))
async def test_server_without_the_endpoint(missing: Script) -> None:
    """A server without embeddings is not asked for them again, and stays healthy for chat; another one is asked."""
    first = Provider(embeddings=[missing])
    second = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    async with gateway_to(first, second) as http:
        for _ in range(4):
            assert await embed(http) == (200, [VECTOR])
        assert {row["state"] for row in (await http.get("/nodes")).json()["nodes"]} == {"healthy"}
        for _ in range(2):
            assert (await http.post(CHAT, json=ASK)).status_code == 200
    assert len(first.requests_to(EMBEDDINGS)) == 1
    assert len(first.chat_requests) == 1


async def test_one_request_does_not_switch_off_an_endpoint() -> None:
    """A 404 for the parameters of one request, from a server whose embeddings have worked, concerns it alone."""
    works, refuses = json_response(embeddings_of(VECTOR)), error_response(404, "No endpoints match your request.")
    async with gateway_to(Provider(embeddings=[works, refuses, works])) as http:
        assert await embed(http) == (200, [VECTOR])
        assert (await http.post(EMBEDDINGS, json=request())).status_code == 503
        assert await embed(http) == (200, [VECTOR])


async def test_no_server_with_the_endpoint() -> None:
    """If no server of a model has embeddings, the error names the endpoint and the model."""
    first, second = Provider(), Provider()
    async with gateway_to(first, second) as http:
        for _ in range(3):
            response = await http.post(EMBEDDINGS, json=request())
            assert response.status_code == 400
            assert response.json()["error"] == {
                "message": "The model 'mock' does not support /v1/embeddings.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "unsupported_model",
            }
    assert len(first.requests_to(EMBEDDINGS)) == len(second.requests_to(EMBEDDINGS)) == 1


@pytest.mark.parametrize("fault", [None, "500", "429"])
async def test_fallbacks(fault: str | None) -> None:
    """A fallback model is asked, except for token ids, which mean something else to it."""
    first = Provider(embeddings=[] if fault is None else [FAULTS[fault]])
    second = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    async with gateway_to(first, second, models=["mock", "other"], fallbacks={"mock": ["other"]}) as http:
        response = await http.post(EMBEDDINGS, json=request())
        assert (response.json()["data"][0]["embedding"], response.json()["model"]) == (VECTOR, "other")
        assert (await http.post(EMBEDDINGS, json=request(input=[1, 2]))).status_code >= 400
        assert (await http.post(EMBEDDINGS, json=request(input=[[1, 2]]))).status_code >= 400


async def test_conversation() -> None:
    """The messages that vLLM accepts instead of inputs are passed on; a request without either, too."""
    provider = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    given = {"model": "mock", "messages": ASK["messages"]}
    async with gateway_to(provider) as http:
        assert (await http.post(EMBEDDINGS, json=given)).status_code == 200
        provider.set_scripts(error_response(400, "input is required", param="input"), path=EMBEDDINGS)
        response = await http.post(EMBEDDINGS, json={"model": "mock", "input": None})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
    assert [one.body for one in provider.requests_to(EMBEDDINGS)] == [
        {"model": "model", "messages": ASK["messages"]},
        {"model": "model"},
    ]


async def test_nesting() -> None:
    """A request or a response that is nested however deeply is passed on or refused, and is never an internal error."""
    deep = ["[" * depth + "]" * depth for depth in range(880, 1020, 3)]
    statuses = set()
    provider = Provider(embeddings=[json_response(embeddings_of(VECTOR))])
    async with gateway_to(provider) as http:
        for value in deep:
            body = f'{{"model": "mock", "input": "a", "more": {value}}}'
            statuses.add((await http.post(EMBEDDINGS, content=body)).status_code)
    assert statuses == {200, 400}
    for value in deep[::8]:
        entry = json_text(json.dumps(embeddings_of(VECTOR)).replace('"index"', f'"more": {value}, "index"'))
        async with gateway_to(Provider(embeddings=[entry])) as http:
            assert (await embed(http))[0] in (200, 503)


async def test_full_server() -> None:
    """One request uses one slot of its server, whatever the number of inputs."""
    provider = Provider(embeddings=[json_response(embeddings_of(*[VECTOR] * 9))])
    async with gateway_to_nodes((provider, {"concurrency": 1})) as http:
        assert (await embed(http, input=["a"] * 9))[0] == 200


async def test_many_large_embeddings() -> None:
    """Two thousand embeddings arrive unchanged."""
    vectors = [[number / 7, -number / 3] * 16 for number in range(2048)]

    def respond(request: RecordedRequest) -> Script:
        assert len(request.body["input"]) == 2048
        return json_response(embeddings_of(*vectors))

    async with gateway_to(Provider(embeddings=[respond])) as http:
        assert await embed(http, input=["text"] * 2048) == (200, vectors)


async def test_usage_in_metrics() -> None:
    """The prompt tokens that the server reports are in the gateway's metrics."""
    async with gateway_to(Provider(embeddings=[json_response(embeddings_of(VECTOR))])) as http:
        await embed(http)
        text = (await http.get("/metrics")).text
    assert 'adapter_tokens_total{kind="prompt",model="mock"} 3.0' in text


async def test_openai_client() -> None:
    """OpenAI's client, which requests base64, decodes embeddings in either form, after a failover, too."""
    first = Provider(embeddings=[FAULTS["NaN"]])
    second = Provider(embeddings=[json_response(embeddings_of(PACKED, VECTOR))])
    async with gateway_to(first, second) as http:
        async with AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="-", max_retries=0) as client:
            found = await client.embeddings.create(model="mock", input=["a", "b"])
    assert [one.embedding for one in found.data] == [pytest.approx(VECTOR)] * 2
    assert second.requests_to(EMBEDDINGS)[0].body["encoding_format"] == "base64"
