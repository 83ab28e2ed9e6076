"""Which pages may call the gateway, as a browser decides it, and what they can read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Page

from adapter.config import Settings
from tests.browser.conftest import Launch, serving
from tests.fakes import ASK, gateway, saying

CHAT = "/v1/chat/completions"
KEY = "sk-1"
# Calls the gateway as a client in a page does, and returns what the page sees of the answer.
CALL = """async ({url, body, headers, method}) => {
    try {
        const response = await fetch(url, {method, headers, body: body && JSON.stringify(body)});
        let text = '', parts = 0;
        const reader = response.body.getReader(), decoder = new TextDecoder();
        for (let part; !(part = await reader.read()).done; parts++) text += decoder.decode(part.value, {stream: true});
        return {status: response.status, text, parts, headers: Object.fromEntries(response.headers)};
    } catch (error) {
        return {status: 0, text: String(error), parts: 0, headers: {}};
    }
}"""
# Headers of the OpenAI SDK, for which the browser sends a preflight.
SDK = {"content-type": "application/json", "x-stainless-lang": "js", "x-stainless-retry-count": "0"}


async def call(
    page: Page, url: str, fields: dict[str, Any] | None = None, *, key: str = "", path: str = CHAT
) -> dict[str, Any]:
    headers = SDK | ({"authorization": f"Bearer {key}"} if key else {})
    body = ASK | {"stream": True} | (fields or {})
    seen: dict[str, Any] = await page.evaluate(
        CALL, {"url": f"{url}{path}", "body": body, "headers": headers, "method": "POST"}
    )
    return seen


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "app.localhost"])
async def test_a_page_of_this_machine(page: Page, site: int, host: str) -> None:
    """Without keys it may call: it reads the stream as it comes, the headers of the answer, and those of an error."""
    await page.goto(f"http://{host}:{site}/")
    async with gateway(saying("Hello there")) as url:
        answer = await call(page, url, {"unknown_parameter": 1})
        assert answer["status"] == 200, answer["text"]
        assert answer["text"].endswith("data: [DONE]\n\n")
        assert answer["parts"] > 1
        assert answer["headers"]["x-request-id"]
        assert answer["headers"]["x-ignored-params"] == "unknown_parameter"
        refused = await call(page, url, {"model": "other"})
        assert (refused["status"], "model_not_found" in refused["text"]) == (404, True)
    async with gateway(settings=Settings(access_log=False, aliases={"mock": "gone"})) as url:
        failed = await call(page, url)
    assert (failed["status"], bool(failed["headers"].get("retry-after"))) == (503, True)


async def test_a_page_of_a_stranger(page: Page, site: int) -> None:
    """It sees nothing, and its requests do not reach a node: neither those with a preflight nor simple ones."""
    node = saying("Hello")
    await page.goto(f"http://evil.example:{site}/")
    async with gateway(node) as url:
        assert (await call(page, url))["status"] == 0
        for mode in ("cors", "no-cors"):
            await page.evaluate(
                "([url, body, mode]) => fetch(url, {method: 'POST', mode, body}).catch(() => null)",
                [f"{url}{CHAT}", '{"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}', mode],
            )
        # A form needs no permission either.
        await page.evaluate(
            """url => new Promise(resolve => {
                document.body.innerHTML = `<iframe name=f></iframe>
                    <form method=post enctype=text/plain target=f action="${url}">
                    <input name='{"model":"mock","messages":[{"role":"user","content":"Hi' value='"}]}'></form>`;
                document.querySelector('iframe').onload = resolve;
                document.querySelector('form').submit();
            })""",
            f"{url}{CHAT}",
        )
    assert node.requests == []


async def test_with_keys(page: Page, site: int) -> None:
    """With keys, only the pages of the setting may call, and need a key; what is wrong with theirs they can read."""
    allowed, other = f"http://chat.example:{site}", f"http://localhost:{site}"
    settings = Settings(access_log=False, api_keys=(KEY,), cors_origins=(allowed,))
    async with gateway(saying("Hello"), settings=settings) as url:
        await page.goto(allowed)
        assert (await call(page, url, key=KEY))["status"] == 200
        assert (await call(page, url, key="wrong"))["status"] == 401
        await page.goto(other)
        assert (await call(page, url, key=KEY))["status"] == 0


@pytest.mark.parametrize("setting", [(), ("null",)], ids=["default", "allowed"])
async def test_a_page_from_a_file(page: Page, tmp_path: Path, setting: tuple[str, ...]) -> None:
    """A page from a file has the origin `null`, which any website can have: it may call only by the setting."""
    (tmp_path / "page.html").write_text("<!doctype html><title>A page</title>")
    await page.goto((tmp_path / "page.html").as_uri())
    async with gateway(saying("Hello"), settings=Settings(access_log=False, cors_origins=setting)) as url:
        assert (await call(page, url))["status"] == (200 if setting else 0)


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[int]:
    """Pass requests on as nginx does by default: with the name and port of the gateway as `Host`."""

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with aiohttp.ClientSession() as session:
            async with session.request(
                request.method, f"{url}{request.path_qs}", headers=headers, data=await request.read()
            ) as found:
                kept = {name: found.headers[name] for name in ("content-type", "x-request-id")}
                return web.Response(status=found.status, body=await found.read(), headers=kept)

    async with serving(forward) as port:
        yield port


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["open", "keys"])
async def test_its_own_page_behind_a_proxy(launch: Launch, keys: tuple[str, ...]) -> None:
    """A page of the gateway may call it, though a proxy hides under which name: the browser says that it is its own.
    A stranger's page that calls the proxy is still refused.
    """
    node = saying("Hello")
    async with gateway(node, settings=Settings(access_log=False, api_keys=keys)) as url, proxy_to(url) as port:
        public = f"http://gateway.example:{port}"
        # Browsers say it to sites with TLS only, as this is to be one.
        async with launch(f"--unsafely-treat-insecure-origin-as-secure={public}") as browser:
            page = await browser.new_page()
            await page.goto(f"{public}/")
            assert (await call(page, public, key=KEY))["status"] == 200
            await page.goto(f"http://localhost:{port}/")
            await page.evaluate(
                "([url, body]) => fetch(url, {method: 'POST', mode: 'no-cors', body}).catch(() => null)",
                [f"{public}{CHAT}", "{}"],
            )
    assert len(node.requests) == 1
