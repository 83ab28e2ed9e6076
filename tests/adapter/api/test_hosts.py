"""DNS rebinding: under which names a gateway without keys on a loopback address can be called."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.auth.hosts import Hosts
from adapter.config import Settings
from tests.fakes import ASK, gateway, saying

CHAT = "/v1/chat/completions"
# As at Ollama (server/routes_test.go), with others.
LOCAL = [
    "localhost",
    "LOCALHOST:8000",
    "app.localhost",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.9.9.9",
    "[::1]",
    "[::1]:8000",
    "localhost.",
    "[::ffff:127.0.0.1]:8000",
]
FOREIGN = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.7", "10.0.0.1:80"),
    *("a@b", "evil.example@localhost", "[fe80::1]", "notlocalhost", "example.com.", "2130706433"),
    *("[::1", "[", ":8000", 'evil"', "evil.example/localhost"),
]


@pytest.mark.parametrize("host", [*LOCAL, "host.docker.internal:8000"])
async def test_names_of_this_machine(host: str) -> None:
    """A gateway without keys on loopback is called by localhost, a loopback address, or from a container."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post(CHAT, json=ASK, headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_other_names(host: str) -> None:
    """Any other name is refused on every path, also with the origin of a rebound page, before the body is read."""
    node = saying("Hi")
    async with gateway(node) as url, httpx.AsyncClient(base_url=url, headers={"host": host}) as client:
        for method, path in (("GET", "/"), ("GET", "/v1/models"), ("OPTIONS", CHAT), ("GET", "/nowhere")):
            response = await client.request(method, path)
            # What is not a host at all is invalid HTTP.
            assert response.status_code in (400, 403), path
        response = await client.post(CHAT, json=ASK, headers={"origin": f"http://{host}"})
        assert response.json()["error"]["code"] in ("host_not_allowed", "invalid_http")
        assert "access-control-allow-origin" not in response.headers
    assert node.requests == []


@pytest.mark.parametrize(
    "settings",
    [
        {"api_keys": ("sk-1",)},
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "192.168.1.7"},
        {"allowed_hosts": ("GPU-1.example",)},
        {"allowed_hosts": ("*",)},
    ],
)
async def test_where_the_name_does_not_matter(settings: dict[str, object]) -> None:
    """With keys, and on other addresses, the name does not matter; the setting allows others."""
    given = Settings(access_log=False, **settings)  # type: ignore[arg-type]
    async with gateway(saying("Hi"), settings=given) as url:
        async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer sk-1"}) as client:
            assert (await client.get("/v1/models", headers={"host": "gpu-1.example:8000"})).status_code == 200


def test_the_unspecified_address_is_no_name_of_this_machine() -> None:
    """0.0.0.0 is refused, though pages of that origin may call: browsers let websites reach this machine by it."""
    assert not Hosts([]).allows("0.0.0.0:8000")


@given(st.text(st.characters(max_codepoint=255), max_size=20))
def test_any_text_is_judged(host: str) -> None:
    """No Host header makes the check fail."""
    assert Hosts([]).allows(host) in (True, False)
