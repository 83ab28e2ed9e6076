"""A browser for the tests of web pages, and sites whose pages it shows."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.can_run import BROWSERS

# Names in this domain are this machine, so that a page can have any origin; nothing else is ever looked up.
DOMAIN = "example"
_HOSTS = f"MAP *.{DOMAIN} 127.0.0.1, MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_ARGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"),
    *("--disable-sync", "--disable-component-update", "--disable-default-apps"),
    f"--host-resolver-rules={_HOSTS}",
)

Launch = Callable[..., AbstractAsyncContextManager[Browser]]


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Function that starts Chromium, with further arguments if there are any."""
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")

    @asynccontextmanager
    async def start(*args: str) -> AsyncIterator[Browser]:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=executable, args=[*_ARGS, *args])
            yield browser
            await browser.close()

    return start


@pytest.fixture
async def page(launch: Launch) -> AsyncIterator[Page]:
    """An empty page."""
    async with launch() as browser:
        yield await browser.new_page()


@pytest.fixture
async def site() -> AsyncIterator[int]:
    """Port of a site with an empty page."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>A page</title>", content_type="text/html")

    async with serving(answer) as port:
        yield port


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """Answer all requests to a port of the loopback interface with `handler`, and yield the port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
