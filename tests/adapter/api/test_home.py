"""GET /: the page for browsers, and the JSON for programs."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest

from adapter.config import Settings
from subnet.version import VERSION
from tests.fakes import gateway, saying

# What Firefox and Chromium send.
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Page(HTMLParser):
    """The tags, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name == "href" and tag == "a"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/plain"])
async def test_programs_get_json(accept: str | None) -> None:
    """curl and HTTP libraries get JSON with the name, the version, the models and links that work."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/", headers={"accept": accept} if accept else {})
        found = response.json()
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert (found["name"], found["version"], found["models"]) == ("subnet-adapter", VERSION, ["mock"])
        for path in found["links"].values():
            assert (await client.get(path)).status_code == 200


async def test_browsers_get_a_page() -> None:
    """A browser gets HTML with the base URL as it is reached, the models, and links that work."""
    settings = Settings(allowed_hosts=("chat.example.com",), access_log=False)
    async with gateway(saying("Hi"), settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/", headers=BROWSER)
        page = Page(response.text)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert f"{url}/v1" in page.text
        assert VERSION in page.text
        assert {"Models", "mock"} <= set(page.text.split())
        for path in page.links:
            assert (await client.get(path)).status_code == 200
        behind = await client.get("/", headers={**BROWSER, "host": "chat.example.com", "x-forwarded-proto": "https"})
        assert "https://chat.example.com/v1" in Page(behind.text).text


async def test_the_policy_is_strict() -> None:
    """The home page has a Content-Security-Policy: it runs no script, loads nothing, and cannot be framed."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/", headers=BROWSER)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in Page(response.text).tags
    assert re.findall(r"(?:src|style)=", response.text) == []


async def test_names_cannot_inject_markup() -> None:
    """A model's name, which its node chooses, is escaped in the home page."""
    async with (
        gateway(saying("Hi", model="<script>alert(1)</script>")) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        response = await client.get("/", headers=BROWSER)
    assert "script" not in Page(response.text).tags
    assert "<script>alert(1)</script>" in Page(response.text).text


@pytest.mark.parametrize("host", ['"><script>alert(2)</script>', "a b", "a/b"])
async def test_an_invalid_host(host: str) -> None:
    """An invalid Host header gets a 400 in OpenAI's error envelope, on every path."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/", "/v1/models"):
            response = await client.get(path, headers={**BROWSER, "host": host})
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "invalid_http"


async def test_without_a_node() -> None:
    """The home page says that no node is healthy, and where to see the reason."""
    async with gateway() as url, httpx.AsyncClient(base_url=url) as client:
        page = Page((await client.get("/", headers=BROWSER)).text)
    assert "no node is healthy" in page.text
    assert "/nodes" in page.links


async def test_with_api_keys() -> None:
    """With API keys, the home page needs no key, and does not list the models."""
    async with gateway(saying("Hi"), settings=Settings(api_keys=("sk-1",))) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/")).json()["models"] is None
            response = await client.get("/", headers=BROWSER)
    assert response.status_code == 200
    assert "mock" not in response.text


async def test_other_methods() -> None:
    """For the home page, HEAD has no body, and POST is rejected with the allowed methods."""
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        head = await client.head("/", headers=BROWSER)
        assert (head.status_code, head.content) == (200, b"")
        refused = await client.post("/")
        assert (refused.status_code, refused.headers["allow"]) == (405, "HEAD, GET, OPTIONS")
