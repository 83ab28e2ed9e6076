"""Models that the settings promise: unavailable until they are seen, never unknown, and named as the client did."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapter.config import ModelSpec, Settings
from subnet.errors import NoNodeAvailable
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Capabilities
from subnet.protocols.mock_chat import MockChatProtocol
from tests.adapter.api.test_pipeline import ENDPOINTS, check_error
from tests.fakes import ASK, gateway, saying

CAN = Capabilities(embeddings=True)
PROMISES: dict[str, dict[str, Any]] = {
    "target": {"aliases": {"alias": "target"}},
    "alias": {"aliases": {"alias": "target"}},
    "outer": {"aliases": {"outer": "alias", "alias": "target"}},
    "fallback": {"fallbacks": {"mock": ("fallback",)}},
    "first": {"fallbacks": {"first": ("second",)}},
    "default": {"default_model": "default"},
    "anything": {"default_model": "default"},
    "org/of-a-node": {"nodes": (NodeSpec(url="http://127.0.0.1:9", models={"org/of-a-node": "upstream"}),)},
    "with-settings": {"models": {"with-settings": ModelSpec()}},
}


@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_promised_model_is_unavailable(name: str, path: str) -> None:
    """A promised model that no node has served yet is a 503 that says when to retry, and names it as the client did."""
    async with gateway(saying("Hi", capabilities=CAN), settings=Settings(**PROMISES[name])) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            response = await client.post(path, json={"model": name, **ENDPOINTS[path]})
            listed = await client.get(f"/v1/models/{name}")
    for one in (response, listed):
        check_error(one, 503, "no_node_available", "model")
        assert one.json()["error"]["message"] == f"No node is currently serving the model '{name}'."
        assert one.headers["retry-after"] == "1"


async def test_other_models_stay_unknown() -> None:
    """A model that nothing promises is a 404, also beside promised ones, which the message does not list."""
    given = Settings(aliases={"alias": "target"}, fallbacks={"first": ("second",)})
    async with gateway(saying("Hi"), settings=given) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/chat/completions", json={**ASK, "model": "other"})
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "The model 'other' does not exist. Available models: mock."


async def test_the_default_model_does_not_replace_a_promised_one() -> None:
    """The default model answers for unknown names, not for a model of a node that was not seen yet."""
    given = Settings(default_model="mock", nodes=(NodeSpec(url="http://127.0.0.1:9", models={"late": "late"}),))
    async with gateway(saying("Hi"), settings=given) as url, httpx.AsyncClient(base_url=url) as client:
        late = await client.post("/v1/chat/completions", json={**ASK, "model": "late"})
        unknown = await client.post("/v1/chat/completions", json={**ASK, "model": "unknown"})
    assert (late.status_code, unknown.status_code) == (503, 200)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions"])
async def test_errors_name_the_alias(path: str, stream: bool) -> None:
    """Whatever goes wrong with the model that an alias refers to, the message has the name that the client used."""
    node = MockChatProtocol([NoNodeAvailable("No node serves the model 'target' now.")], models=["target"])
    given = Settings(aliases={"my-alias": "target"}, access_log=False)
    async with gateway(node, settings=given) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(path, json={**ASK, "model": "my-alias", "stream": stream})
    assert response.status_code >= 400
    assert "'my-alias'" in response.json()["error"]["message"]
    assert "target" not in response.text
