"""API keys of clients: who is served, who is rejected, and with which error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from adapter.api.common.access_log import logger as access_logger
from adapter.api.routes import ROUTES
from adapter.auth.keys import ApiKeys
from adapter.config import Settings
from adapter.errors import InvalidApiKey
from adapter.process.nodes_command import fetch
from subnet.errors import SettingsError
from tests.fakes import ASK, gateway, saying

KEY, OTHER = "sk-abcdefghijklmnopqrstuvwxyz", "sk-0123456789"
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def closed() -> AsyncIterator[str]:
    settings = Settings(api_keys=(KEY, OTHER), cors_origins=("*",), access_log=True)
    async with gateway(saying("Hi"), settings=settings) as url:
        yield url


async def test_openai_client() -> None:
    """OpenAI's client is served with any configured key; a wrong key raises AuthenticationError, which shows the key
    abbreviated.
    """
    async with closed() as url:
        for key in (KEY, OTHER):
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as client:
                assert (await client.models.list()).data[0].id == "mock"
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-wrong-but-long-enough-to-be-shown") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.models.list()
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")
    assert "Incorrect API key provided: sk-wr***wn." in caught.value.message


@pytest.mark.parametrize("header", [None, "", "Bearer", f"Basic {KEY}", KEY])
async def test_request_without_a_key(header: str | None) -> None:
    """A request without a valid bearer header gets status 401 and instructions how to send a key."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json=ASK, headers={"authorization": header} if header is not None else {})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_api_key", None)
    assert error["message"].startswith("You didn't provide an API key.")


async def test_every_endpoint_requires_a_key() -> None:
    """Every endpoint requires a key, except for the operator's open ones, and checks it before it parses the
    request.
    """
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for route in ROUTES:
            response = await client.request(route.method, route.path, content=b"no JSON")
            assert (response.status_code == 200) == route.open, route.path
            assert response.status_code in (200, 401)
            below = await client.request(route.method, f"{route.path}/", content=b"no JSON")
            assert (below.status_code == 200) == route.open, route.path
        assert (await client.get("/v1/models/mock")).status_code == 401


async def test_cors_without_a_key() -> None:
    """A CORS preflight needs no key, and a page can read the 401 response to its request."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
        assert (await client.options(CHAT, headers=asked)).status_code == 204
        refused = await client.post(CHAT, json=ASK, headers={"origin": "https://a.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "*"


async def test_keys_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither valid nor invalid API keys are logged."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, access_logger.name)
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for key in (KEY, "sk-wrong-but-long-enough-to-be-shown"):
            await client.post(CHAT, json=ASK, headers={"authorization": f"Bearer {key}"})
    assert '"status":401' in caplog.text
    assert "sk-" not in caplog.text


async def test_headers_of_every_response() -> None:
    """Every response, rejected or not, has OpenAI's headers: version, request id and processing time."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/healthz", "/v1/models", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["openai-version"] == "2020-10-01"
            assert headers["x-request-id"].startswith("req_")
            assert int(headers["openai-processing-ms"]) >= 0


async def test_nodes_command_sends_a_key() -> None:
    """`adapter nodes` sends a key to the gateway, and raises an error that names --api-key if it has none."""
    async with closed() as url:
        assert b'"mock"' in await asyncio.to_thread(fetch, url, KEY)
        with pytest.raises(SettingsError, match="--api-key"):
            await asyncio.to_thread(fetch, url)


async def test_body_of_a_rejected_request() -> None:
    """The body of a request rejected with 401 does not disturb later requests on the same connection."""
    async with closed() as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(2):
            assert (await client.post(CHAT, content=b"x" * 2_000_000)).status_code == 401
            served = await client.post(CHAT, json=ASK, headers={"authorization": f"Bearer {KEY}"})
            assert served.status_code == 200


def test_without_configured_keys() -> None:
    """Without configured keys every request is accepted, with or without a key."""
    ApiKeys().check(None)
    ApiKeys().check("Bearer anything")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_wrong_keys_are_rejected_and_abbreviated(given_key: str) -> None:
    """Any key other than a configured one is rejected, and the error shows at most its first 5 and last 2
    characters.
    """
    keys = ApiKeys(["right"])
    keys.check("bearer  right ")
    if given_key.strip() == "right":
        return
    with pytest.raises(InvalidApiKey) as caught:
        keys.check(f"Bearer {given_key}")
    shown = caught.value.message.removeprefix("Incorrect API key provided: ")
    assert shown == "***." or (len(given_key) >= 20 and shown == f"{given_key[:5]}***{given_key[-2:]}.")


def test_key_that_is_not_ascii() -> None:
    """A key with non-ASCII characters is accepted as UTF-8, although HTTP headers are decoded as Latin-1."""
    ApiKeys(["schlüssel"]).check("Bearer " + "schlüssel".encode().decode("latin-1"))
