"""What is open with API keys set: the same under every spelling, alias and method, and nothing open names anything."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.common.http_request import Target
from adapter.api.common.paths import PathTable
from adapter.api.routes import ROUTES
from adapter.config import Settings
from subnet.version import VERSION
from tests.fakes import ASK, gateway, saying

KEY = "sk-abcdefghijklmnopqrstuvwxyz"
OPEN = {"/", "/health", "/healthz", "/ping", "/readyz"}
MODEL, PEER = "org/secret-model", "secret-node"
MODEL_PATHS = ["/openai/deployments/org%2Fsecret-model/chat/completions", "/v1/models/org/secret-model"]
BROWSER = {"accept": "text/html"}


@asynccontextmanager
async def closed(**more: Any) -> AsyncIterator[str]:
    settings = Settings(api_keys=(KEY,), access_log=False, **more)
    async with gateway(saying("Hi", model=MODEL, peer=PEER), settings=settings) as url:
        yield url


async def status(url: str, method: str, target: str, *headers: str) -> tuple[int, str]:
    """Send a request whose path is not normalised, and return status and body of the response."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}:{port}", "connection: close", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head, _, body = (await reader.read()).decode("latin-1").partition("\r\n\r\n")
    writer.close()
    return int(head.split(" ")[1]), body


def spellings(path: str) -> set[str]:
    """Return spellings of a path, some of which refer to the same endpoint."""
    bare = path.removeprefix("/v1")
    found = {f"{prefix}{one}" for prefix in ("", "/v1", "/v1/v1", "/openai", "/openai/v1") for one in (path, bare)}
    found |= {
        f"/{path}",
        path.replace("/", "//"),
        f"{path}/",
        f"{path}//",
        f"/.{path}",
        f"/v1/..{path}",
        f"/x/..{path}",
    }
    found |= {path.upper(), path.title(), f"{path};x=1", f"{path}?x=/healthz", f"{path}%00", f"{path}%2f", f"{path}#x"}
    found |= {"/" + "".join(f"%{ord(char):02x}" for char in path[1:]), f"/%2e%2e{path}", f"/healthz/..{path}"}
    found |= {f"/openai/deployments/m{bare}", f"http://127.0.0.1{path}", f"/healthz{path}", path.replace("/", "\\")}
    return {one for one in found if one.startswith(("/", "http"))}


def is_open(target: str) -> bool:
    """Return whether a request's target is one of the open paths, with any slashes around it."""
    path = target.removeprefix("http://127.0.0.1").partition("?")[0].partition("#")[0]
    path = httpx.URL(f"http://x{path}").path if "%" in path else path
    return "/" + path.strip("/") in OPEN


async def test_every_spelling_of_every_route_needs_a_key() -> None:
    """With keys set, only the open paths are served without one, whatever the spelling or the method, and no response
    without a key names a model, a node or the version.
    """
    async with closed() as url:
        for route in ROUTES:
            for target, method in itertools.product(spellings(route.path.replace("{model}", MODEL)), ("GET", "POST")):
                found, body = await status(url, method, target)
                if not is_open(target):
                    assert found in (400, 401), (method, target)
                assert found in (200, 400, 401, 405), (method, target)
                assert not any(word in body for word in ("secret-model", PEER, VERSION)), (target, body)


def test_the_open_routes_are_those_of_the_list() -> None:
    """The open endpoints are those that the documentation names, and all of them are liveness checks or the page."""
    assert {route.path for route in ROUTES if route.open} == OPEN


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])
async def test_unknown_paths_need_a_key(method: str) -> None:
    """Without a key, a path that does not exist is refused like one that does: responses do not tell which is which."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/nowhere", "/v1/nowhere", "/admin", "/nodes/secret-node/stop", "/v1"):
            refused = await client.request(method, path)
            assert refused.status_code == 401, path
            named = await client.request(method, path, headers={"authorization": f"Bearer {KEY}"})
            assert named.status_code == 404, path


async def test_open_endpoints_name_nothing() -> None:
    """Open endpoints, and OPTIONS everywhere, name no model, node or version, in neither body nor headers."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for path in [*OPEN, *MODEL_PATHS, "/nodes", "/nowhere"]:
            responses = [await client.options(path)]
            if path in OPEN:
                responses += [await client.get(path), await client.get(path, headers=BROWSER), await client.head(path)]
            for response in responses:
                text = f"{response.headers} {response.text}".replace(path, "")
                assert response.status_code in (200, 204, 404), path
                assert not any(word in text for word in ("secret-model", PEER, VERSION)), path
    async with gateway(settings=Settings(api_keys=(KEY,), access_log=False)) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"api-key": KEY},
        {"x-api-key": KEY},
        {"authorization": "Bearer any", "api-key": KEY},
        {"authorization": "Basic abc", "x-api-key": KEY},
    ],
)
async def test_headers_with_a_key(headers: dict[str, str]) -> None:
    """A key is taken from OpenAI's, Azure's and Anthropic's header; one valid key is enough."""
    async with closed() as url, httpx.AsyncClient(base_url=url, headers=headers) as client:
        for path in ("/v1/models", "/openai/v1/models", "/metrics", "/nodes", "/version"):
            assert (await client.get(path)).status_code == 200, path
        for path in MODEL_PATHS[:1]:
            assert (await client.post(path, json=ASK)).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"api-key": "wrong"}, {"x-api-key": ""}, {"api-key": f"Bearer {KEY}"}, {"x-goog-api-key": KEY}]
)
async def test_headers_without_a_valid_key(headers: dict[str, str]) -> None:
    """A wrong or empty key is refused in any header, with the same error as in OpenAI's, and never shown."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/v1/models", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert KEY not in json.dumps(response.json())


async def test_the_first_of_repeated_headers_counts() -> None:
    """A header that somebody adds after the client's own changes nothing, for keys and for origins."""
    right, wrong = f"authorization: Bearer {KEY}", "authorization: Bearer wrong"
    allowed, refused = "origin: https://allowed.example", "origin: https://refused.example"
    async with closed(cors_origins=("https://allowed.example",)) as url:
        for headers, expected in (
            ((right, wrong), 200),
            ((wrong, right), 401),
            ((right, allowed, refused), 200),
            ((right, refused, allowed), 403),
        ):
            assert (await status(url, "GET", "/v1/models", *headers))[0] == expected, headers


async def test_only_options_can_be_a_preflight() -> None:
    """A request that has the headers of a preflight needs a key like any other, unless its method is OPTIONS."""
    headers = ("origin: https://allowed.example", "access-control-request-method: GET")
    async with closed(cors_origins=("https://allowed.example",)) as url:
        for method, expected in (("OPTIONS", 204), ("GET", 401), ("POST", 401)):
            assert (await status(url, method, "/v1/models", *headers))[0] == expected, method


async def test_a_key_in_the_query_is_not_accepted() -> None:
    """A key in the query is not accepted, as URLs are logged."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for query in (f"key={KEY}", f"api-key={KEY}", f"api_key={KEY}"):
            assert (await client.get(f"/v1/models?{query}")).status_code == 401


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=30))
def test_no_other_path_is_open(path: str) -> None:
    """Among all paths, only those of the list are open, with any slashes around them."""
    target: Target = PathTable(ROUTES).find("/" + path)
    assert target.open == ("/" + path.strip("/") in OPEN)
