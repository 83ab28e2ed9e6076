"""HTTP client for upstream servers: errors, connections, API keys, proxies and certificates."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest
from aiohttp import web

from subnet.errors import (
    InvalidRequest,
    NodeError,
    NodeLost,
    RateLimited,
    SettingsError,
    SubnetError,
    Unauthorized,
    WireError,
)
from subnet.http.client import HttpClient
from subnet.http.credentials import Credentials
from subnet.http.node_spec import NodeSpec
from subnet.http.sse import Event
from tests.provider import (
    CHAT,
    Cut,
    Pause,
    Provider,
    Script,
    answer,
    connection_reset,
    cut_off,
    error_response,
    event,
    json_response,
    raw,
    unresponsive,
)

KEY = "sk-a-secret-of-somebody"


def http_to(provider: Provider, **spec: Any) -> HttpClient:
    return HttpClient(NodeSpec(url=provider.url, **spec))


async def collect(http: HttpClient, body: Any = None) -> list[Event]:
    async with http.events(CHAT, body or {}) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    ("url", "models", "props"),
    [
        ("http://h:1", "http://h:1/v1/models", "http://h:1/props"),
        ("http://h:1/", "http://h:1/v1/models", "http://h:1/props"),
        ("http://h:1/v1", "http://h:1/v1/models", "http://h:1/props"),
        ("http://h:1/v1/", "http://h:1/v1/models", "http://h:1/props"),
        ("https://h/api/v1", "https://h/api/v1/models", "https://h/api/props"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai/models", "https://h/v1beta/openai/props"),
        ("https://h/api/paas/v4", "https://h/api/paas/v4/models", "https://h/api/paas/v4/props"),
        ("https://h/serving", "https://h/serving/v1/models", "https://h/serving/props"),
        ("http://v2.example", "http://v2.example/v1/models", "http://v2.example/props"),
    ],
)
def test_urls_for_every_form_of_the_address(url: str, models: str, props: str) -> None:
    """Paths below /v1/ follow the version in the address; all others are relative to its root."""
    access = Credentials(NodeSpec(url=url))
    assert (access.url("/v1/models"), access.url("/props")) == (models, props)


async def test_json_is_fetched_and_posted() -> None:
    """JSON is fetched and posted with the configured headers and without a key if none is set."""
    async with Provider(json_response({"a": [1]})) as provider, http_to(provider, headers={"X-Title": "test"}) as http:
        assert await http.get("/v1/models") == {
            "object": "list",
            "data": [{"id": "model", "object": "model", "created": 1}],
        }
        assert await http.post(CHAT, {"b": 2}) == {"a": [1]}
        assert [request.path for request in provider.requests] == ["/v1/models", CHAT]
        posted = provider.chat_requests[0]
        assert posted.body == {"b": 2}
        assert posted.headers["x-title"] == "test"
        assert posted.headers["User-Agent"].startswith("subnet/")
        assert "authorization" not in {name.lower() for name in posted.headers}


@pytest.mark.parametrize(("size", "in_thread"), [(1000, False), (300_000, True)])
async def test_large_json_is_read_in_a_thread(size: int, in_thread: bool) -> None:
    """A large response is decoded and read in a thread, so that it does not block the event loop; errors are raised."""
    large = json_response({"data": ["x" * size]})

    def read(value: Any) -> tuple[int, int]:
        return len(value["data"][0]), threading.get_ident()

    async with Provider(large, json_response({"error": {"message": "x" * size}})) as provider:
        async with http_to(provider) as http:
            length, thread = await http.post_and_read(CHAT, {}, read)
            with pytest.raises(NodeError):
                await http.post_and_read(CHAT, {}, read)
    assert (length, thread != threading.get_ident()) == (size, in_thread)


async def test_events_are_returned() -> None:
    """Events are returned with comments, CRLF, and without a blank line at the end."""
    script = raw("data: a\r\n\r", "\n: alive\n", "data: b")
    async with Provider(script) as provider, http_to(provider) as http:
        assert await collect(http) == [Event("a"), Event("alive", "", comment=True), Event("b")]


async def test_json_response_is_one_event() -> None:
    """A JSON response to a request for events is returned as one event and marked by `is_json`."""
    async with Provider(json_response({"a": 1}), answer()) as provider, http_to(provider) as http:
        async with http.events(CHAT, {}) as events:
            assert [event.data async for event in events] == ['{"a": 1}']
            assert events.is_json
        async with http.events(CHAT, {}) as events:
            await anext(aiter(events))
            assert not events.is_json


@pytest.mark.parametrize("start", ["", " ", "\n\n", "\ufeff", "\ufeff \r\n"])
async def test_events_and_json_are_told_apart_by_the_first_character(start: str) -> None:
    """Events declared as JSON, and JSON declared as events, are read as what they are."""
    scripts = (
        raw(start, "data: a\n\n", headers={"content-type": "application/json"}),
        raw(start, '{"a":', " 1}", headers={"content-type": "text/event-stream"}),
    )
    async with Provider(*scripts) as provider, http_to(provider) as http:
        assert await collect(http) == [Event("a")]
        assert await collect(http) == [Event('{"a": 1}')]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (connection_reset(), NodeLost),
        (cut_off(after=2), NodeLost),
        (raw("<html>Sign in</html>", headers={"content-type": "text/html"}), WireError),
        (raw("{", headers={"content-type": "application/json"}), WireError),
        (raw(b'{"a": "\xff\xfe"}', headers={"content-type": "application/json"}), WireError),
        (json_response({"error": {"message": "no", "param": "stop", "type": "invalid_request_error"}}), InvalidRequest),
        (raw(b"data: " + b"x" * (17 << 20)), WireError),
        (error_response(429), RateLimited),
        (Script(status=307, headers={"location": "http://127.0.0.1:1/"}), NodeError),
    ],
)
async def test_failures_are_distinguished(script: Script, error: type[SubnetError]) -> None:
    """Lost connections, invalid data, error responses and redirects raise different errors after one request."""
    async with Provider(script) as provider, http_to(provider) as http:
        with pytest.raises(error):
            await collect(http)
        assert len(provider.chat_requests) == 1


async def test_other_protocol_is_a_wire_error() -> None:
    """A server that does not speak HTTP raises WireError."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server, HttpClient(NodeSpec(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as http:
        with pytest.raises(WireError):
            await http.get("/v1/models")


async def test_unreachable_server_is_a_lost_node() -> None:
    """An unreachable server raises NodeLost with the operating system's message."""
    async with Provider() as provider:
        pass
    async with http_to(provider) as http:
        with pytest.raises(NodeLost, match="Connection refused"):
            await http.get("/v1/models")


async def test_invalid_hostname_is_a_lost_node() -> None:
    """A hostname that is invalid raises NodeLost, the same as an unknown one."""
    async with HttpClient(NodeSpec(url=f"http://{'a' * 70}.invalid")) as http:
        with pytest.raises(NodeLost):
            await http.get("/v1/models")


async def test_connect_timeout() -> None:
    """A machine that accepts no more connections raises NodeLost after connect_timeout."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        spec = NodeSpec(url=f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=0.05)
        async with HttpClient(spec) as http:
            with pytest.raises(NodeLost, match="timed out"):
                await http.get("/v1/models")


async def test_leaving_the_block_ends_the_request() -> None:
    """Leaving the block before the last event closes the connection."""
    async with Provider(Script([event({}), Pause()])) as provider, http_to(provider) as http:
        async with http.events(CHAT, {}) as events:
            async for _ in events:
                break
        await asyncio.wait_for(provider.chat_requests[0].disconnected.wait(), 5)


async def test_cancelling_ends_the_request() -> None:
    """Cancelling a request closes the connection, also before the server has responded."""
    async with Provider(unresponsive()) as provider, http_to(provider) as http:
        request = asyncio.create_task(collect(http))
        while not provider.chat_requests:
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(provider.chat_requests[0].disconnected.wait(), 5)


async def test_truncated_error_body_is_a_lost_node() -> None:
    """An error response with a truncated body raises NodeLost, whatever its status."""
    script = Script([b'{"error"', Cut()], 400, {"content-type": "application/json", "content-length": "100"})
    async with Provider(script) as provider, http_to(provider) as http:
        with pytest.raises(NodeLost):
            await collect(http)


# Keys.


async def test_key_is_read_for_every_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The API key is read from settings, environment or file for every request."""
    path = tmp_path / "key"
    path.write_text("sk-first\n")
    monkeypatch.setenv("PROVIDER_KEY", "sk-of-the-environment")
    async with Provider(json_response({})) as provider:
        for spec in ({"api_key": KEY}, {"api_key_env": "PROVIDER_KEY"}):
            async with http_to(provider, **spec) as http:
                await http.post(CHAT, {})
        async with http_to(provider, api_key_file=str(path)) as http:
            await http.post(CHAT, {})
            path.write_text("sk-second")
            await http.post(CHAT, {})
        sent = [request.headers["Authorization"] for request in provider.chat_requests]
    assert sent == [f"Bearer {key}" for key in (KEY, "sk-of-the-environment", "sk-first", "sk-second")]


@pytest.mark.parametrize(
    "spec", [{"api_key_env": "NOWHERE_TO_BE_SEEN"}, {"api_key_file": "/nowhere/key"}, {"api_key": "a\r\nb"}]
)
async def test_unusable_key_sends_no_request(spec: dict[str, str]) -> None:
    """No request is sent with a missing or invalid API key, and the error does not contain it."""
    async with Provider() as provider, http_to(provider, **spec) as http:
        with pytest.raises(Unauthorized) as caught:
            await http.get("/v1/models")
        assert "a\r\nb" not in str(caught.value)
        assert provider.requests == []


async def test_key_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    """Secrets are redacted in errors, also in the server's own message, and are never logged."""
    caplog.set_level(logging.DEBUG)
    message = f"Not with {KEY}, nor with Bearer {KEY}, nor with another-secret"
    scripts = [
        error_response(401, message),
        error_response(400, message),
        json_response({"error": {"message": message}}),
    ]
    async with Provider(*scripts) as provider:
        async with http_to(provider, api_key=KEY, headers={"x-api-key": "another-secret"}) as http:
            for error in (Unauthorized, InvalidRequest, NodeError):
                with pytest.raises(error) as caught:
                    await collect(http)
                assert "***" in str(caught.value)
                assert not any(secret in repr(caught.value) for secret in (KEY, "another-secret"))
            assert KEY not in repr(vars(http)) + repr(http)
    assert KEY not in caplog.text


async def test_redirects_are_not_followed() -> None:
    """A redirect is an error, and the API key is not sent to its target."""
    async with Provider() as other:
        script = Script(status=302, headers={"location": f"{other.url}/models"})
        async with Provider(routes={"/props": script}) as provider, http_to(provider, api_key=KEY) as http:
            with pytest.raises(NodeError, match="302"):
                await http.get("/props")
        assert other.requests == []


def test_headers_are_validated() -> None:
    """A configured header with a line break is rejected."""
    with pytest.raises(SettingsError, match="x-a"):
        Credentials(NodeSpec(url="http://h", headers={"x-a": "1\r\nx-b: 2"}))


# Proxies and certificates.


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Run an HTTP proxy. Return its address, and the list of requests through it."""
    requests: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        requests.append(f"{request.method} {request.raw_path if request.method == 'CONNECT' else request.url}")
        return web.json_response({"data": []})

    server = web.Server(handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", requests
    await runner.cleanup()


async def test_configured_proxy() -> None:
    """The configured proxy is used, and resolves the server's name."""
    async with proxy() as (address, requests):
        async with HttpClient(NodeSpec(url="http://provider.invalid", proxy=address)) as http:
            assert await http.get("/v1/models") == {"data": []}
        assert requests == ["GET http://provider.invalid/v1/models"]


async def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is used, except for loopback addresses and hosts in NO_PROXY."""
    async with proxy() as (address, requests), Provider() as provider:
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("no_proxy", "inside.invalid")
        async with HttpClient(NodeSpec(url="http://provider.invalid")) as http:
            await http.get("/v1/models")
        async with http_to(provider) as http:
            await http.get("/v1/models")
        async with HttpClient(NodeSpec(url="http://inside.invalid")) as http:
            with pytest.raises(NodeLost):
                await http.get("/v1/models")
        assert requests == ["GET http://provider.invalid/v1/models"]
        assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("variable", "proxy"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("https://proxy", "https://proxy"),
        ("socks5://proxy:1080", None),
        ("", None),
    ],
)
def test_only_http_proxies_of_the_environment_are_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str | None
) -> None:
    """Only HTTP proxies of the environment are used, with or without a scheme."""
    monkeypatch.setenv("all_proxy", variable)
    assert Credentials(NodeSpec(url="https://provider.invalid")).proxy == proxy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a self-signed certificate for 127.0.0.1 and its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=ours", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"]
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return path


@asynccontextmanager
async def secure_server(certificate: Path) -> AsyncIterator[tuple[str, set[int]]]:
    """Run an HTTPS server. Return its address, and the set of client ports that connected to it."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ports: set[int] = set()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event({"data": []}))
        await response.write(event("[DONE]"))
        return response

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}", ports
    await runner.cleanup()


async def read_to_done(http: HttpClient) -> None:
    async with http.events(CHAT, {}) as events:
        async for each in events:
            if each.data == "[DONE]":
                break


async def test_ca_bundle(certificate: Path) -> None:
    """A self-signed certificate is accepted with its CA bundle only."""
    async with secure_server(certificate) as (url, _):
        async with HttpClient(NodeSpec(url=url, ca_bundle=str(certificate))) as http:
            await read_to_done(http)
        async with HttpClient(NodeSpec(url=url)) as http:
            with pytest.raises(NodeLost, match="certificate"):
                await read_to_done(http)


async def test_https_connections_are_reused(certificate: Path) -> None:
    """An HTTPS connection is reused after a response that was read up to [DONE]."""
    async with secure_server(certificate) as (url, ports):
        async with HttpClient(NodeSpec(url=url, ca_bundle=str(certificate))) as http:
            for _ in range(3):
                await read_to_done(http)
    assert len(ports) == 1


def test_invalid_ca_bundle(tmp_path: Path) -> None:
    """An invalid CA bundle raises SettingsError before any request."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=path.name):
            HttpClient(NodeSpec(url="https://h", ca_bundle=str(path)))
