"""Web pages: which origins may call, what they may read, and which requests are refused before they are read."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapter.auth.origins import Origins
from adapter.config import Settings
from tests.fakes import ASK, gateway, saying

CHAT = "/v1/chat/completions"
KEY = "sk-1"
# As at Ollama (envconfig/config_test.go), with others that browsers and apps really send.
LOCAL = [
    *(
        "http://localhost",
        "https://localhost",
        "http://localhost:3000",
        "http://LOCALHOST:3000",
        "https://127.0.0.1:8443",
    ),
    *("http://127.0.0.1", "http://[::1]:5173", "http://127.8.9.1", "http://app.localhost:1420", "http://0.0.0.0:8080"),
    *("http://tauri.localhost", "app://obsidian.md", "app://-", "tauri://localhost", "capacitor://localhost"),
    *("file://", "vscode-webview://1a2b3c", "vscode-file://vscode-app", "ionic://localhost"),
]
FOREIGN = [
    *("https://evil.example", "http://localhost.evil.example", "http://evil.example:80", "http://127.0.0.1.nip.io"),
    *(
        "http://192.168.1.7:3000",
        "http://10.0.0.1",
        "http://notlocalhost",
        "http://localhost@evil.example",
        "http://evil@localhost",
        "null",
    ),
    *("chrome-extension://abc", "moz-extension://abc", "http://evil.example/.localhost", "https://2130706433", "x", ""),
    *(
        "http://[::1",
        "javascript://localhost",
        "http://localhost.",
        "http://169.254.169.254",
        "http://[::ffff:1.2.3.4]",
    ),
]
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "Authorization, X-Stainless-OS"}


@pytest.mark.parametrize("origin", LOCAL)
async def test_pages_of_this_machine(origin: str) -> None:
    """Without keys, pages from this machine and desktop apps may call, by default."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        asked = await client.options(CHAT, headers={"origin": origin, **PREFLIGHT})
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-origin"] == origin
        assert asked.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
        assert "POST" in asked.headers["access-control-allow-methods"]
        answer = await client.post(CHAT, json=ASK, headers={"origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
        assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", FOREIGN)
async def test_pages_of_other_origins(origin: str) -> None:
    """Pages of other origins get a 403 in OpenAI's envelope, for preflights and for requests, before these are read."""
    node = saying("Hi")
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        asked = await client.options(CHAT, headers={"origin": origin, **PREFLIGHT})
        simple = await client.post(CHAT, content=b"not read", headers={"origin": origin, "content-type": "text/plain"})
        for response in (asked, simple):
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (403, "origin_not_allowed", None)
            assert "cors_origins" in error["message"]
            assert response.headers["x-request-id"]
            assert not [name for name in response.headers if name.startswith("access-control-")]
    assert node.requests == []


async def test_with_keys() -> None:
    """With keys, pages may call only by the setting; a program or the gateway's own page is served with its key."""
    settings = Settings(api_keys=(KEY,), access_log=False, cors_origins=("https://Chat.example/",))
    async with gateway(saying("Hi"), settings=settings) as url:
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client:
            for origin, allowed in (("https://chat.example", True), ("http://localhost:3000", False), (url, False)):
                asked = await client.options(CHAT, headers={"origin": origin, **PREFLIGHT})
                assert (asked.status_code, "access-control-allow-origin" in asked.headers) == (
                    (204, True) if allowed else (403, False)
                )
                answer = await client.post(CHAT, json=ASK, headers={"origin": origin})
                assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, allowed)
            refused = await client.post(CHAT, json=ASK, headers={"origin": "https://evil.example"})
            assert refused.status_code == 403
            assert (await client.post(CHAT, json=ASK)).status_code == 200


async def test_the_gateways_own_page_behind_a_proxy() -> None:
    """The browser says that a request is same-origin, whatever `Host` a proxy sends; nothing else it says counts."""
    origin = {"origin": "https://gateway.example"}
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        for site, status in (("same-origin", 200), ("same-site", 403), ("cross-site", 403), ("none", 403), ("", 403)):
            answer = await client.post(CHAT, json=ASK, headers=origin | {"sec-fetch-site": site})
            assert answer.status_code == status, site
            assert "access-control-allow-origin" not in answer.headers
        # A preflight is never same-origin.
        asked = await client.options(CHAT, headers=origin | PREFLIGHT | {"sec-fetch-site": "same-origin"})
    assert asked.status_code == 403


async def test_all_errors_can_be_read() -> None:
    """A page that may call can read every error, and the headers that tell what to do about it."""
    origin = "http://localhost:3000"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", CHAT, {"json": {}}),
        ("POST", CHAT, {"json": {**ASK, "model": "other"}}),
        ("GET", CHAT, {}),
        ("GET", "/nowhere", {}),
        ("GET", "/v1/models", {"headers": {"host": "a b"}}),
        ("POST", CHAT, {"content": b" " * 2000}),
    ]
    async with (
        gateway(settings=Settings(access_log=False, max_body=1024)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        for method, path, given in requests:
            headers = {"origin": origin, **given.pop("headers", {})}
            response = await client.request(method, path, headers=headers, **given)
            assert response.status_code >= 400
            assert response.json().keys() == {"error"}
            assert response.headers["access-control-allow-origin"] == origin
            exposed = set(response.headers["access-control-expose-headers"].split(", "))
            assert {"retry-after", "retry-after-ms", "x-request-id", "x-ignored-params", "x-schema-relaxed"} <= exposed
            assert {"x-max-tokens-bounded", "x-ratelimit-remaining-requests"} <= exposed


async def test_a_stream_can_be_read() -> None:
    """A streamed answer has the headers of CORS, too, once each."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json={**ASK, "stream": True}, headers={"origin": "app://-"})
    assert response.headers.get_list("access-control-allow-origin") == ["app://-"]
    assert response.text.endswith("data: [DONE]\n\n")


async def test_without_an_origin() -> None:
    """Programs, which send no origin, get no headers of CORS, and OPTIONS lists the methods."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        for response in (await client.post(CHAT, json=ASK), await client.options(CHAT), await client.get("/v1/models")):
            assert response.status_code in (200, 204)
            assert not [name for name in response.headers if name.startswith("access-control-")]
        # Not a preflight: it does not name a method.
        options = await client.options(CHAT, headers={"origin": "http://localhost"})
        assert (options.status_code, options.headers["allow"]) == (204, "POST, OPTIONS")


async def test_private_network_access() -> None:
    """Chromium's question whether a page may call a private address is answered for allowed origins only."""
    asked = {**PREFLIGHT, "access-control-request-private-network": "true"}
    settings = Settings(access_log=False, cors_origins=("https://chat.example",))
    async with gateway(saying("Hi"), settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        allowed = await client.options(CHAT, headers={"origin": "https://chat.example", **asked})
        refused = await client.options(CHAT, headers={"origin": "https://evil.example", **asked})
    assert allowed.headers["access-control-allow-private-network"] == "true"
    assert (refused.status_code, "access-control-allow-private-network" in refused.headers) == (403, False)


async def test_odd_names_of_requested_headers() -> None:
    """Requested headers that are no names of headers are not repeated in the response."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        for names in ("a\tb", "x" * 5000, '"', "\u00e4"):
            headers = {"origin": "http://localhost", **PREFLIGHT, "access-control-request-headers": names}
            encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            response = await client.options(CHAT, headers=encoded)
            assert response.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize(
    ("given", "origin", "allowed"),
    [
        ("*", "https://any.example", True),
        ("*", "null", True),
        ("null", "null", True),
        ("https://chat.example", "null", False),
        ("https://chat.example", "http://chat.example", False),
        ("https://chat.example", "https://chat.example:8443", False),
        ("https://chat.example:*", "https://chat.example:8443", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://example.com.evil.example", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("chrome-extension://*", "chrome-extension://abcdef", True),
        ("chrome-extension://*", "https://evil.example", False),
    ],
)
def test_configured_origins(given: str, origin: str, allowed: bool) -> None:
    """A configured origin is compared as a whole; `*` in it stands for a part of a host or port."""
    assert Origins([given]).can_read(origin) == allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://gpu-1:8000", "gpu-1:8000", True),
        ("http://GPU-1:8000", "gpu-1:8000", True),
        ("https://chat.example", "chat.example", True),
        ("https://chat.example", "chat.example:443", True),
        ("http://[fe80::1]:8000", "[fe80::1]:8000", True),
        ("http://gpu-1:8001", "gpu-1:8000", False),
        ("http://gpu-1", "gpu-1:8000", False),
        ("https://evil.example", "gpu-1:8000", False),
        ("null", "null", False),
        ("app2://x", "x", False),
        ("https://chat.example", "", False),
        ("", "", False),
    ],
)
def test_requests_from_the_same_host(origin: str, host: str, allowed: bool) -> None:
    """A page that comes from the gateway itself, under whatever name, may send requests."""
    assert Origins().can_send(origin, host) == allowed
