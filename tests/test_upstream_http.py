"""A server over HTTP: what it refuses, how it is reached, and that its key goes nowhere else."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
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
from tests.provider import CHAT, Cut, Pause, Provider, Script, answer, cut, event, raw, refuse, reset, silent, whole

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
def test_paths_are_joined_whether_the_address_has_a_version_or_not(url: str, models: str, props: str) -> None:
    """/v1/... is where the address says that the API is, all else beside it."""
    access = Credentials(NodeSpec(url=url))
    assert (access.url("/v1/models"), access.url("/props")) == (models, props)


async def test_json_is_fetched_and_posted() -> None:
    """With the headers that the operator wants, and as nobody but ourselves."""
    async with Provider(whole({"a": [1]})) as provider, http_to(provider, headers={"X-Title": "test"}) as http:
        assert await http.get("/v1/models") == {
            "object": "list",
            "data": [{"id": "model", "object": "model", "created": 1}],
        }
        assert await http.post(CHAT, {"b": 2}) == {"a": [1]}
        assert [seen.path for seen in provider.seen] == ["/v1/models", CHAT]
        posted = provider.chats[0]
        assert posted.body == {"b": 2}
        assert posted.headers["x-title"] == "test"
        assert posted.headers["User-Agent"].startswith("subnet/")
        assert "authorization" not in {name.lower() for name in posted.headers}


async def test_events_come_as_they_are_sent() -> None:
    """CRLF, comments, and an end without its empty line."""
    script = raw("data: a\r\n\r", "\n: alive\n", "data: b")
    async with Provider(script) as provider, http_to(provider) as http:
        assert await collect(http) == [Event("a"), Event("alive", "", comment=True), Event("b")]


async def test_a_json_answer_to_a_wish_for_events_is_one_event() -> None:
    """`is_json` says that it is."""
    async with Provider(whole({"a": 1}), answer()) as provider, http_to(provider) as http:
        async with http.events(CHAT, {}) as events:
            assert events.is_json
            assert [event.data async for event in events] == ['{"a":1}']
        async with http.events(CHAT, {}) as events:
            assert not events.is_json


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (reset(), NodeLost),
        (cut(after=2), NodeLost),
        (raw("<html>Sign in</html>", headers={"content-type": "text/html"}), WireError),
        (raw("{", headers={"content-type": "application/json"}), WireError),
        (raw(b"\xff\xfe", headers={"content-type": "application/json"}), WireError),
        (whole({"error": {"message": "no", "param": "stop", "type": "invalid_request_error"}}), InvalidRequest),
        (raw(b"data: " + b"x" * (17 << 20)), WireError),
        (refuse(429), RateLimited),
        (Script(status=307, headers={"location": "http://127.0.0.1:1/"}), NodeError),
    ],
)
async def test_what_goes_wrong_is_told_apart(script: Script, error: type[SubnetError]) -> None:
    """Lost connections, nonsense, refusals also with status 200, redirects."""
    async with Provider(script) as provider, http_to(provider) as http:
        with pytest.raises(error):
            await collect(http)
        assert len(provider.chats) == 1


async def test_a_server_that_speaks_no_http_is_a_wire_error() -> None:
    """As a node of another protocol would."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server, HttpClient(NodeSpec(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as http:
        with pytest.raises(WireError):
            await http.get("/v1/models")


async def test_nobody_there_is_a_lost_node() -> None:
    """In the system's own words."""
    async with Provider() as provider:
        pass
    async with http_to(provider) as http:
        with pytest.raises(NodeLost, match="Connection refused"):
            await http.get("/v1/models")


async def test_a_name_that_cannot_be_one_is_a_lost_node() -> None:
    """As one that nobody has."""
    async with HttpClient(NodeSpec(url=f"http://{'a' * 70}.invalid")) as http:
        with pytest.raises(NodeLost):
            await http.get("/v1/models")


async def test_connecting_is_bounded() -> None:
    """A machine that takes no more connections is lost, however long answers may take."""
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
    """The server sees that nobody listens, and the connection is not used again."""
    async with Provider(Script([event({}), Pause()])) as provider, http_to(provider) as http:
        async with http.events(CHAT, {}) as events:
            async for _ in events:
                break
        await asyncio.wait_for(provider.chats[0].gone.wait(), 5)


async def test_cancelling_ends_the_request() -> None:
    """Also while the server has not said anything yet."""
    async with Provider(silent()) as provider, http_to(provider) as http:
        asking = asyncio.create_task(collect(http))
        while not provider.chats:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(provider.chats[0].gone.wait(), 5)


async def test_a_cut_error_is_a_lost_node() -> None:
    """Its status says nothing that can be relied on."""
    script = Script([b'{"error"', Cut()], 400, {"content-type": "application/json", "content-length": "100"})
    async with Provider(script) as provider, http_to(provider) as http:
        with pytest.raises(NodeLost):
            await collect(http)


# Keys.


async def test_the_key_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the spec, the environment or a file, which may change meanwhile."""
    path = tmp_path / "key"
    path.write_text("sk-first\n")
    monkeypatch.setenv("PROVIDER_KEY", "sk-of-the-environment")
    async with Provider(whole({})) as provider:
        for spec in ({"api_key": KEY}, {"api_key_env": "PROVIDER_KEY"}):
            async with http_to(provider, **spec) as http:
                await http.post(CHAT, {})
        async with http_to(provider, api_key_file=str(path)) as http:
            await http.post(CHAT, {})
            path.write_text("sk-second")
            await http.post(CHAT, {})
        sent = [seen.headers["Authorization"] for seen in provider.chats]
    assert sent == [f"Bearer {key}" for key in (KEY, "sk-of-the-environment", "sk-first", "sk-second")]


@pytest.mark.parametrize(
    "spec", [{"api_key_env": "NOWHERE_TO_BE_SEEN"}, {"api_key_file": "/nowhere/key"}, {"api_key": "a\r\nb"}]
)
async def test_a_key_that_cannot_be_used_is_no_request(spec: dict[str, str]) -> None:
    """Nothing is sent without it."""
    async with Provider() as provider, http_to(provider, **spec) as http:
        with pytest.raises(Unauthorized) as caught:
            await http.get("/v1/models")
        assert "a\r\nb" not in str(caught.value)
        assert provider.seen == []


async def test_the_key_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    """Not even in one of the server, nor in anything that is logged."""
    caplog.set_level(logging.DEBUG)
    said = f"Not with {KEY}, nor with Bearer {KEY}, nor with another-secret"
    scripts = [refuse(401, said), refuse(400, said), whole({"error": {"message": said}})]
    async with Provider(*scripts) as provider:
        async with http_to(provider, api_key=KEY, headers={"x-api-key": "another-secret"}) as http:
            for error in (Unauthorized, InvalidRequest, NodeError):
                with pytest.raises(error) as caught:
                    await collect(http)
                assert "***" in str(caught.value)
                assert not any(secret in repr(caught.value) for secret in (KEY, "another-secret"))
            assert KEY not in repr(vars(http)) + repr(http)
    assert KEY not in caplog.text


async def test_the_key_does_not_follow_a_redirect() -> None:
    """Neither to another host nor to the same."""
    async with Provider() as other:
        script = Script(status=302, headers={"location": f"{other.url}/models"})
        async with Provider(routes={"/props": script}) as provider, http_to(provider, api_key=KEY) as http:
            with pytest.raises(NodeError, match="302"):
                await http.get("/props")
        assert other.seen == []


def test_headers_are_checked_when_they_are_set() -> None:
    """No request can be smuggled in with them."""
    with pytest.raises(SettingsError, match="x-a"):
        Credentials(NodeSpec(url="http://h", headers={"x-a": "1\r\nx-b: 2"}))


# Proxies and certificates.


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy's address, and what was asked through it."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(f"{request.method} {request.raw_path if request.method == 'CONNECT' else request.url}")
        return web.json_response({"data": []})

    server = web.Server(handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def test_a_server_is_reached_through_the_proxy_of_its_spec() -> None:
    """Its name is for the proxy to look up."""
    async with proxy() as (address, asked):
        async with HttpClient(NodeSpec(url="http://provider.invalid", proxy=address)) as http:
            assert await http.get("/v1/models") == {"data": []}
        assert asked == ["GET http://provider.invalid/v1/models"]


async def test_a_server_is_reached_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not on this machine, nor where NO_PROXY says so."""
    async with proxy() as (address, asked), Provider() as provider:
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
        assert asked == ["GET http://provider.invalid/v1/models"]
        assert len(provider.seen) == 1


@pytest.mark.parametrize(
    ("told", "proxy"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("https://proxy", "https://proxy"),
        ("socks5://proxy:1080", None),
        ("", None),
    ],
)
def test_only_proxies_for_http_are_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, told: str, proxy: str | None
) -> None:
    """With or without their scheme."""
    monkeypatch.setenv("all_proxy", told)
    assert Credentials(NodeSpec(url="https://provider.invalid")).proxy == proxy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of our own for 127.0.0.1, with its key, in one file."""
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
    """Its address, and the ports from which it was asked."""
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


async def test_a_certificate_is_trusted_by_its_bundle_only(certificate: Path) -> None:
    """Without it the server is as good as lost."""
    async with secure_server(certificate) as (url, _):
        async with HttpClient(NodeSpec(url=url, ca_bundle=str(certificate))) as http:
            await read_to_done(http)
        async with HttpClient(NodeSpec(url=url)) as http:
            with pytest.raises(NodeLost, match="certificate"):
                await read_to_done(http)


async def test_a_secure_connection_is_used_again(certificate: Path) -> None:
    """If its answer was read to the end, of which [DONE] is the last event, but not the last byte."""
    async with secure_server(certificate) as (url, ports):
        async with HttpClient(NodeSpec(url=url, ca_bundle=str(certificate))) as http:
            for _ in range(3):
                await read_to_done(http)
    assert len(ports) == 1


async def test_a_plain_connection_is_used_once() -> None:
    """Some servers close it without a word after an answer."""
    async with Provider() as provider, http_to(provider) as http:
        for _ in range(3):
            await read_to_done(http)
        assert [seen.headers["Connection"] for seen in provider.chats] == ["close"] * 3


def test_a_bundle_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    """Known before anything is asked."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=path.name):
            HttpClient(NodeSpec(url="https://h", ca_bundle=str(path)))
