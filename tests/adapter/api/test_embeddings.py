"""POST /v1/embeddings over HTTP, with scripted nodes and the real model."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from openai import AsyncOpenAI, OpenAI

from adapter.api.embeddings.embed import BATCH_SIZE, truncate_dimensions
from adapter.errors import BadRequest
from subnet.errors import EngineFailed, NodeLost
from subnet.node_info import Capabilities
from subnet.protocols.mock import DIMENSIONS, MockProtocol, Pause, Step
from tests.fakes import gateway

PATH = "/v1/embeddings"
ABLE = Capabilities(embeddings=True)


def node(*steps: Step, **options: Any) -> MockProtocol:
    return MockProtocol(steps, capabilities=ABLE, **options)


@asynccontextmanager
async def asking(*nodes: MockProtocol) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def ask(*nodes: MockProtocol, **fields: Any) -> httpx.Response:
    async with asking(*nodes) as client:
        return await client.post(PATH, json={"model": "mock", "input": "Hello", **fields})


async def vectors(*nodes: MockProtocol, **fields: Any) -> NDArray[np.float64]:
    """Return the embeddings as an array with one row for each input."""
    response = await ask(*nodes, **fields)
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return np.array([one["embedding"] for one in data])


async def refusal(*nodes: MockProtocol, **fields: Any) -> tuple[int, str | None, str | None]:
    response = await ask(*nodes, **fields)
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


async def test_answer() -> None:
    """An embeddings response has all of OpenAI's keys, and encodes vectors as numbers by default."""
    answer = (await ask(node())).json()
    (one,) = answer.pop("data")
    assert answer == {"object": "list", "model": "mock", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    assert (one["object"], one["index"], len(one["embedding"])) == ("embedding", 0, DIMENSIONS)
    assert np.linalg.norm(one["embedding"]) == pytest.approx(1, abs=1e-6)


async def test_base64() -> None:
    """Base64 embeddings are the same numbers as little-endian float32."""
    (packed,) = (await ask(node(), encoding_format="base64")).json()["data"]
    read = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    assert read.tolist() == (await vectors(node(), encoding_format="float"))[0].tolist()


async def test_openai_client() -> None:
    """OpenAI's client, which requests base64, reads embeddings."""
    async with gateway(node()) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        answer = await client.embeddings.create(model="mock", input=["Hello", "you"])
    assert [len(one.embedding) for one in answer.data] == [DIMENSIONS] * 2
    assert np.allclose(answer.data[0].embedding, await vectors(node()))


async def test_forms_of_inputs() -> None:
    """The same input as text, list of texts, token ids or lists of token ids has the same embedding."""
    expected = await vectors(node(), input=["Hi", "you"])
    assert (await vectors(node(), input=[[*b"Hi"], [*b"you"]])).tolist() == expected.tolist()
    assert (await vectors(node(), input=[*b"Hi"])).tolist() == expected[:1].tolist()


async def test_control_tokens_stay_text() -> None:
    """The text of a control token in an embedding input is tokenized as ordinary text."""
    response = await ask(node(), input="<|end|>")
    assert response.json()["usage"]["prompt_tokens"] == len("<|end|>")


async def test_order_of_many_inputs() -> None:
    """Embeddings of many inputs are in the order of the inputs, whichever node made each of them."""
    texts = [f"text {number}" for number in range(3 * BATCH_SIZE + 1)]
    found = await vectors(node(peer="a"), node(peer="b"), input=texts)
    alone = await vectors(node(), input=[texts[0], texts[-1]])
    assert found.shape == (len(texts), DIMENSIONS)
    assert found[[0, -1]].tolist() == alone.tolist()


async def test_dimensions() -> None:
    """With `dimensions` the vector is cut to its first numbers and normalised again."""
    whole, part = await vectors(node()), await vectors(node(), dimensions=3)
    assert part.shape == (1, 3)
    assert np.allclose(part, whole[:, :3] / np.linalg.norm(whole[:, :3]))
    assert (await vectors(node(), dimensions=DIMENSIONS)).tolist() == pytest.approx(whole)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.integers(1, 20))
def test_shortened_vectors_are_normalised(values: list[float], dimensions: int) -> None:
    """A shortened vector has norm 1, unless it is all zeros; more dimensions than the vector has are rejected."""
    vector = np.array([values], np.float32)
    if dimensions > len(values):
        with pytest.raises(BadRequest):
            truncate_dimensions(vector, dimensions)
        return
    found = truncate_dimensions(vector, dimensions)
    assert found.shape == (1, dimensions)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5) or not vector[:, :dimensions].any()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": [999]}, "input[0]", "invalid_value"),
        ({"input": "x" * 4097}, "input", "context_length_exceeded"),
        ({"input": ["a", "x" * 4097]}, "input[1]", "context_length_exceeded"),
        ({"dimensions": DIMENSIONS + 1}, "dimensions", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "invalid_value"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
    ],
)
async def test_invalid_requests(fields: dict[str, Any], param: str, code: str) -> None:
    """Invalid embedding requests are rejected with the name of the parameter."""
    assert await refusal(node(), **fields) == (400, param, code)


async def test_models_without_embeddings() -> None:
    """A model of which no node supports embeddings is rejected by name; one capable node is enough."""
    plain = MockProtocol(peer="plain")
    assert await refusal(plain) == (400, "model", "invalid_value")
    assert await refusal(plain, model="other") == (404, "model", "model_not_found")
    for _ in range(3):
        assert (await vectors(plain, node(peer="able"))).shape == (1, DIMENSIONS)


@pytest.mark.parametrize("fault", [NodeLost("gone"), EngineFailed("broken"), Pause()])
async def test_failover(fault: Step) -> None:
    """Embeddings are made by another node if the first one is lost, fails or times out."""
    expected = await vectors(node())
    bad, good = node(fault, peer="bad"), node(peer="good")
    async with asking(bad, good) as client:
        for _ in range(3):
            response = await client.post(PATH, json={"model": "mock", "input": "Hello"})
            assert response.json()["data"][0]["embedding"] == expected[0].tolist()


async def test_all_nodes_fail() -> None:
    """If all nodes fail, attempts are bounded and the error is a 503, which clients retry."""
    bad = [node(EngineFailed("broken"), peer=name) for name in "abc"]
    assert await refusal(*bad) == (503, None, "node_failed")


def test_real_model(real: str) -> None:
    """The real model's embeddings have norm 1, do not depend on other inputs, and are more similar for similar
    texts.
    """
    client = OpenAI(base_url=f"{real}/v1", api_key="any")
    model = client.models.list().data[0].id
    texts = ["The cat sat on the mat.", "A cat sits on a mat.", "Interest rates rose by two percent in March."]
    rows = np.array([one.embedding for one in client.embeddings.create(model=model, input=texts).data])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    alone = np.array(client.embeddings.create(model=model, input=texts[1]).data[0].embedding)
    assert np.allclose(alone, rows[1], atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
