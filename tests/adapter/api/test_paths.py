"""Paths: every endpoint is reached by its aliases, and the error for an unknown path names the one that was meant."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.common.paths import PathTable
from adapter.api.routes import ROUTES
from subnet.node_info import Capabilities
from tests.adapter.api.test_pipeline import ENDPOINTS, check_error
from tests.fakes import ASK, gateway, saying

CAN = Capabilities(embeddings=True)
TABLE = PathTable(ROUTES)
PREFIXES = ["", "/v1", "/v1/v1", "/openai", "/openai/v1", "//v1/", "/v1//openai"]
MODEL_FOLDERS = ["/openai/deployments", "/deployments", "/v1/engines", "/engines", "/openai/v1/deployments"]
NAMES = [route.path.removeprefix("/v1").strip("/") for route in ROUTES]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_aliases_reach_every_endpoint(prefix: str) -> None:
    """Every endpoint of the API is reached without /v1, with it, with it twice, and below Azure's prefixes; also HEAD,
    OPTIONS and wrong methods.
    """
    async with gateway(saying("Hi", capabilities=CAN)) as url, httpx.AsyncClient() as client:
        for route in ROUTES:
            name = route.path.removeprefix("/v1/").replace("{model}", "mock").strip("/")
            if not (route.path.startswith("/v1/") or route.request):
                continue
            path = f"{url}{prefix}/{name}"
            body = {"model": "mock", **ENDPOINTS.get(route.path, {})}
            response = await client.request(route.method, path, json=body)
            assert response.status_code == 200, path
            allowed = "HEAD, GET, OPTIONS" if route.method == "GET" else "POST, OPTIONS"
            options = await client.options(path)
            assert (options.status_code, options.headers["allow"]) == (204, allowed), path
            head = await client.head(path)
            assert (head.status_code, head.content) == (200 if route.method == "GET" else 405, b""), path
            wrong = await client.delete(path)
            assert (wrong.status_code, wrong.headers["allow"]) == (405, allowed), path
            check_error(wrong, 405, "method_not_allowed")


@pytest.mark.parametrize("folder", MODEL_FOLDERS)
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_model_in_the_path(folder: str, path: str) -> None:
    """A deployment in the path is the model, with or without one in the body, and wins over that."""
    node = saying("Hi", model="org/mock", capabilities=CAN)
    name = path.removeprefix("/v1").removeprefix("/")
    async with gateway(node) as url, httpx.AsyncClient() as client:
        for model in ({}, {"model": "other"}, {"model": None}, {"model": 5}):
            address = f"{url}{folder}/org%2Fmock/{name}?api-version=2024-10-21"
            response = await client.post(address, json={**ENDPOINTS[path], **model})
            assert response.status_code == 200, response.text
        unknown = await client.post(f"{url}{folder}/other/{name}", json={**ENDPOINTS[path], "model": "org/mock"})
    check_error(unknown, 404, "model_not_found")
    assert "'other'" in unknown.json()["error"]["message"]


async def test_endpoints_for_operators_have_no_aliases() -> None:
    """Endpoints for operators have one path each, as proxies block them by it; only slashes around it do not matter."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient() as client:
        for name in ("nodes", "metrics", "version", "healthz", "openapi.json"):
            for prefix in ("/v1", "/openai", "/openai/v1", "/v1/v1"):
                response = await client.get(f"{url}{prefix}/{name}")
                assert (response.status_code, f"mean /{name}?" in response.text) == (404, True)
            assert (await client.get(f"{url}//{name}/")).status_code == 200


async def test_metrics_count_aliases_by_their_endpoint() -> None:
    """Metrics have requests by canonical path, so that clients cannot invent labels."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/openai/deployments/mock/chat/completions", json=ASK)
        await client.get("/v1/models/mock")
        await client.get("/nowhere")
        text = (await client.get("/metrics")).text
    for endpoint, status in (("/v1/chat/completions", 200), ("/v1/models", 200), ("other", 404)):
        assert f'adapter_requests_total{{endpoint="{endpoint}",status="{status}"}} 1.0' in text


@pytest.mark.parametrize("path", ["/health", "/ping", "/healthz"])
async def test_liveness_without_a_model(path: str) -> None:
    """Liveness checks succeed without a model: load generators and orchestrators wait for this status."""
    async with gateway() as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/chat", "/v1/chat/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/api/openai/v1/models", "/v1/models"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1beta/openai/chat/completions", "/v1/chat/completions"),
        ("/v2/chat/completions", "/v1/chat/completions"),
        ("/v1/model", "/v1/models"),
        ("/v1/embedding", "/v1/embeddings"),
        ("/completion", "/v1/completions"),
        ("/api/chat", "/v1/chat/completions"),
        ("/api/tags", "/v1/models"),
        ("/api/v0/models", "/v1/models"),
        ("/NODES", "/nodes"),
        ("/metric", "/metrics"),
        ("/livez", "/healthz"),
        # A model is missing: "chat" is none.
        ("/deployments/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/chat/completions", "/v1/chat/completions"),
        ("/v1/engines/chat/completions/render", "/v1/chat/completions/render"),
    ],
)
async def test_the_error_names_what_was_meant(path: str, meant: str) -> None:
    """The error for an unknown path names the path that was probably meant."""
    async with gateway() as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get(path)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "unknown_url")
    assert error["message"] == f"Invalid URL (GET {path}). Did you mean {meant}?"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/v1/", "/x", "/favicon.ico", "/" + "chat/" * 500, "/v1/../nodes/x"])
def test_nothing_similar(path: str) -> None:
    """A path that resembles none has no suggestion."""
    assert TABLE.suggest(path) is None


def test_prefixes_alone_are_no_endpoint() -> None:
    """A base URL by itself is unknown, and a model's name is not split off without an endpoint after it."""
    for path in ("/v1", "/v1/", "/openai", "/openai/deployments", "/openai/deployments/m", "/engines//completions"):
        assert TABLE.find(path).endpoint is None, path


@given(st.text(max_size=50) | st.lists(st.sampled_from(["v1", "openai", "", "..", "%6e", *NAMES])).map("/".join))
def test_any_path_has_a_target(path: str) -> None:
    """Any path has a target: it is the same for its canonical path, and only canonical paths are open."""
    found = TABLE.find(path)
    again = TABLE.find(found.path)
    assert (again.path, again.endpoint) == (found.path, found.endpoint)
    assert not found.open or path.strip("/") == found.path.strip("/")
    suggested: Any = TABLE.suggest(path)
    assert suggested is None or TABLE.find(suggested).endpoint == suggested
