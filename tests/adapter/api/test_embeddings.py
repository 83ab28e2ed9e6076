"""POST /v1/embeddings, over HTTP: scripted nodes, and the real model."""

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
    """As numbers, a row for each input."""
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
    """All of OpenAI's keys, and numbers unless something else is asked for."""
    answer = (await ask(node())).json()
    (one,) = answer.pop("data")
    assert answer == {"object": "list", "model": "mock", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    assert (one["object"], one["index"], len(one["embedding"])) == ("embedding", 0, DIMENSIONS)
    assert np.linalg.norm(one["embedding"]) == pytest.approx(1, abs=1e-6)


async def test_base64() -> None:
    """Little-endian float32, the same numbers."""
    (packed,) = (await ask(node(), encoding_format="base64")).json()["data"]
    read = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    assert read.tolist() == (await vectors(node(), encoding_format="float"))[0].tolist()


async def test_openai_client() -> None:
    """OpenAI's own client, which asks for base64."""
    async with gateway(node()) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        answer = await client.embeddings.create(model="mock", input=["Hello", "you"])
    assert [len(one.embedding) for one in answer.data] == [DIMENSIONS] * 2
    assert np.allclose(answer.data[0].embedding, await vectors(node()))


async def test_forms_of_inputs() -> None:
    """A text, texts, token ids and lists of token ids: the same tokens have the same embedding."""
    expected = await vectors(node(), input=["Hi", "you"])
    assert (await vectors(node(), input=[[*b"Hi"], [*b"you"]])).tolist() == expected.tolist()
    assert (await vectors(node(), input=[*b"Hi"])).tolist() == expected[:1].tolist()


async def test_control_tokens_stay_text() -> None:
    """What is read is not obeyed: a text that looks like a control token is none."""
    response = await ask(node(), input="<|end|>")
    assert response.json()["usage"]["prompt_tokens"] == len("<|end|>")


async def test_many_inputs() -> None:
    """They are in order, whichever node made which."""
    texts = [f"text {number}" for number in range(3 * BATCH_SIZE + 1)]
    found = await vectors(node(peer="a"), node(peer="b"), input=texts)
    alone = await vectors(node(), input=[texts[0], texts[-1]])
    assert found.shape == (len(texts), DIMENSIONS)
    assert found[[0, -1]].tolist() == alone.tolist()


async def test_dimensions() -> None:
    """The first of them, of length 1 again."""
    whole, part = await vectors(node()), await vectors(node(), dimensions=3)
    assert part.shape == (1, 3)
    assert np.allclose(part, whole[:, :3] / np.linalg.norm(whole[:, :3]))
    assert (await vectors(node(), dimensions=DIMENSIONS)).tolist() == pytest.approx(whole)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.integers(1, 20))
def test_shortened_is_of_length_one(values: list[float], dimensions: int) -> None:
    """Or nothing but zeros; what would be longer is refused."""
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
async def test_refusals(fields: dict[str, Any], param: str, code: str) -> None:
    """The client's mistakes are named."""
    assert await refusal(node(), **fields) == (400, param, code)


async def test_models_that_cannot() -> None:
    """A model none of whose nodes makes embeddings is refused by its name; it needs one that does."""
    plain = MockProtocol(peer="plain")
    assert await refusal(plain) == (400, "model", "invalid_value")
    assert await refusal(plain, model="other") == (404, "model", "model_not_found")
    for _ in range(3):
        assert (await vectors(plain, node(peer="able"))).shape == (1, DIMENSIONS)


@pytest.mark.parametrize("fault", [NodeLost("gone"), EngineFailed("broken"), Pause()])
async def test_a_node_that_fails(fault: Step) -> None:
    """Another one is asked: for one that is lost, broken or late."""
    expected = await vectors(node())
    bad, good = node(fault, peer="bad"), node(peer="good")
    async with asking(bad, good) as client:
        for _ in range(3):
            response = await client.post(PATH, json={"model": "mock", "input": "Hello"})
            assert response.json()["data"][0]["embedding"] == expected[0].tolist()


async def test_all_nodes_fail() -> None:
    """Attempts are bounded, and the error is one that clients retry."""
    bad = [node(EngineFailed("broken"), peer=name) for name in "abc"]
    assert await refusal(*bad) == (503, None, "node_failed")


def test_real_model(real: str) -> None:
    """The small model: of length 1, the same each time and whatever else is asked, and like for what is alike."""
    client = OpenAI(base_url=f"{real}/v1", api_key="any")
    model = client.models.list().data[0].id
    texts = ["The cat sat on the mat.", "A cat sits on a mat.", "Interest rates rose by two percent in March."]
    rows = np.array([one.embedding for one in client.embeddings.create(model=model, input=texts).data])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    alone = np.array(client.embeddings.create(model=model, input=texts[1]).data[0].embedding)
    assert np.allclose(alone, rows[1], atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
