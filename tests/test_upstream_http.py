"""A server over HTTP: what it refuses, how it is reached, and that its key goes nowhere else."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from time import time
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import (
    ContentRefused,
    ContextLengthExceeded,
    InvalidRequest,
    NodeBusy,
    NodeError,
    NodeLost,
    RateLimited,
    RequestError,
    SettingsError,
    SubnetError,
    Unauthorized,
    WireError,
)
from subnet.upstream.access import Access
from subnet.upstream.http import Http
from subnet.upstream.refusals import UNPAID, NotFound, refusal
from subnet.upstream.retry_after import retry_after
from subnet.upstream.spec import NodeSpec
from subnet.upstream.sse import Event
from tests.provider import CHAT, Cut, Pause, Provider, Script, answer, cut, event, raw, refuse, reset, silent, whole

KEY = "sk-a-secret-of-somebody"


def http_to(provider: Provider, **spec: Any) -> Http:
    return Http(NodeSpec(url=provider.url, **spec))


async def collect(http: Http, body: Any = None) -> list[Event]:
    async with http.events(CHAT, body or {}) as events:
        return [event async for event in events]


# What servers say, and which error it is: status, body, error, param.
REFUSALS: list[tuple[int, Any, type[SubnetError], str | None]] = [
    # OpenAI
    (
        400,
        {"error": {"message": "bad", "type": "invalid_request_error", "param": "temperature"}},
        InvalidRequest,
        "temperature",
    ),
    (
        400,
        {"error": {"message": "too long", "code": "context_length_exceeded", "param": "messages"}},
        ContextLengthExceeded,
        "messages",
    ),
    (400, {"error": {"message": "no", "code": "content_policy_violation"}}, ContentRefused, None),
    (401, {"error": {"message": "Incorrect API key provided: sk-..", "code": "invalid_api_key"}}, Unauthorized, None),
    (403, {"error": {"message": "Country, region, or territory not supported"}}, Unauthorized, None),
    (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, NotFound, None),
    (429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, RateLimited, None),
    (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, RateLimited, None),
    (500, {"error": {"message": "The server had an error", "type": "server_error"}}, NodeError, None),
    (503, {"error": {"message": "The engine is currently overloaded, please try again later"}}, NodeBusy, None),
    # Azure
    (
        400,
        {
            "error": {
                "message": "The response was filtered due to Azure OpenAI's content management policy.",
                "param": "prompt",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        ContentRefused,
        "prompt",
    ),
    # vLLM, its older form too
    (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 512 tokens.",
                "type": "BadRequestError",
                "code": 400,
            }
        },
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 512 tokens.", "code": 400},
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {"error": {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."}},
        ContextLengthExceeded,
        None,
    ),
    # SGLang
    (
        400,
        {"object": "error", "message": "The input (9 tokens) is longer than the model's context length (8 tokens)."},
        ContextLengthExceeded,
        None,
    ),
    # llama-server
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "request (9 tokens) exceeds it",
                "type": "exceed_context_size_error",
                "n_ctx": 8,
            }
        },
        ContextLengthExceeded,
        None,
    ),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, NodeError, None),
    # Ollama
    (
        400,
        {"error": {"message": "the input length exceeds the context length", "type": "invalid_request_error"}},
        ContextLengthExceeded,
        None,
    ),
    (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, NodeBusy, None),
    (404, {"error": {"message": "model 'x' not found", "type": "not_found_error"}}, NotFound, None),
    # Text Generation Inference
    (
        422,
        {
            "error": "Input validation error: `inputs` must have less than 8 tokens. Given: 9",
            "error_type": "validation",
        },
        ContextLengthExceeded,
        None,
    ),
    (
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8",
            "error_type": "validation",
        },
        ContextLengthExceeded,
        None,
    ),
    (429, {"error": "Model is overloaded", "error_type": "overloaded"}, RateLimited, None),
    # Mistral, and FastAPI
    (
        422,
        {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs"}]}},
        InvalidRequest,
        "n",
    ),
    (
        422,
        {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Field required"}]},
        InvalidRequest,
        "messages.0.role",
    ),
    (
        400,
        {"object": "error", "message": "Prompt contains 9 tokens, too large for model with 8 maximum context length"},
        ContextLengthExceeded,
        None,
    ),
    # Anthropic
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}},
        ContextLengthExceeded,
        None,
    ),
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        RateLimited,
        None,
    ),
    (400, {"type": "error", "error": {"message": "Output blocked by content filtering policy"}}, ContentRefused, None),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, NodeBusy, None),
    # Gemini
    (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        Unauthorized,
        None,
    ),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (9) exceeds the maximum number of tokens allowed (8).",
                }
            }
        ],
        ContextLengthExceeded,
        None,
    ),
    (429, [{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}], RateLimited, None),
    # Groq
    (
        413,
        {"error": {"message": "Request too large", "type": "tokens", "code": "rate_limit_exceeded"}},
        RateLimited,
        None,
    ),
    # OpenRouter
    (402, {"error": {"code": 402, "message": "Insufficient credits"}}, RateLimited, None),
    (
        403,
        {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}},
        ContentRefused,
        None,
    ),
    # DeepSeek
    (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}, ContentRefused, None),
    # whoever
    (400, "nonsense", InvalidRequest, None),
    (413, "<html>Request Entity Too Large</html>", InvalidRequest, None),
    (405, "", NotFound, None),
    (408, "", NodeError, None),
    (409, "", NodeError, None),
    (425, "", NodeError, None),
    (502, "<html>Bad Gateway</html>", NodeError, None),
    (504, None, NodeError, None),
]


@pytest.mark.parametrize(("status", "body", "error", "param"), REFUSALS)
def test_a_refusal_is_the_error_that_it_means(
    status: int, body: Any, error: type[SubnetError], param: str | None
) -> None:
    """Each server's own way to say it."""
    found = refusal("peer", status, body)
    assert type(found) is (NodeError if error is NodeError else error)
    assert found.param == param
    assert found.message


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "busy", "code": 429}}, RateLimited),
        ({"error": {"message": "busy", "code": "429"}}, RateLimited),
        ({"error": {"message": "busy", "type": "rate_limit_error"}}, RateLimited),
        ({"error": {"message": "no such key", "type": "authentication_error"}}, Unauthorized),
        ({"error": {"message": "wrong", "type": "invalid_request_error", "param": "stop"}}, InvalidRequest),
        ({"error": {"message": "wrong", "code": 400, "type": "BadRequestError"}}, InvalidRequest),
        ({"error": {"message": "too long", "type": "exceed_context_size_error"}}, ContextLengthExceeded),
        ({"error": {"message": "Overloaded", "type": "overloaded_error"}}, NodeBusy),
        ({"error": {"message": "Provider disconnected", "code": 502}}, NodeError),
        ({"error": {"message": "oh"}}, NodeError),
        ({"error": "oh"}, NodeError),
        ({"error": {}}, NodeError),
        ([{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED"}}], RateLimited),
        ("oh", NodeError),
    ],
)
def test_an_error_without_a_status_is_known_by_its_name(body: Any, error: type[SubnetError]) -> None:
    """As events have it, and answers with status 200."""
    assert type(refusal("peer", 200, body)) is error


@given(
    status=st.integers(200, 599),
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "message", "detail", "code", "type", "param", "loc", "msg", "metadata", "details"]
                ),
                inner,
            )
        ),
        max_leaves=8,
    ),
)
def test_any_answer_makes_an_error(status: int, body: Any) -> None:
    """However odd its shape; a request error only for what is the request's fault."""
    found = refusal("peer", status, body, {"retry-after": str(body)[:20]})
    assert isinstance(found, NodeError | RequestError)
    assert not isinstance(found, RequestError) or status in (400, 403, 413, 422, 500) or status < 400


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "20ms"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-reset-tokens": "1.5s",
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-remaining-tokens": "0",
            },
            1.5,
        ),
        ({"x-ratelimit-reset-tokens": "1h2m3s"}, 3723.0),
        ({"x-ratelimit-reset-tokens": "later"}, None),
        ({}, None),
    ],
)
def test_when_to_ask_again_is_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    """Of all servers' own ones, the most exact first."""
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


def test_when_to_ask_again_may_be_a_moment() -> None:
    """An HTTP date, or milliseconds since 1970 in OpenRouter's header or body."""
    moment = time() + 100
    body = {"error": {"metadata": {"headers": {"X-RateLimit-Reset": str(int(moment * 1000))}}}}
    for found in (
        retry_after({"retry-after": formatdate(moment, usegmt=True)}),
        retry_after({"x-ratelimit-reset": str(int(moment * 1000))}),
        retry_after({}, body),
    ):
        assert found is not None
        assert 90 < found <= 100
    assert retry_after({"retry-after": formatdate(moment - 1000, usegmt=True)}) == 0


def test_when_to_ask_again_may_be_said_in_the_body() -> None:
    """Gemini's RetryInfo, OpenAI's and Groq's sentence."""
    body = {"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]}}
    assert retry_after({}, body) == 34
    assert retry_after({}, {}, "Rate limit reached. Please try again in 7m1.5s. Visit ...") == 421.5


def test_who_did_not_pay_is_asked_again_much_later() -> None:
    """Whatever else the server says of when."""
    for status, body in ((429, {"error": {"code": "insufficient_quota", "message": "quota"}}), (402, "pay")):
        assert refusal("peer", status, body, {"retry-after": "1"}).retry_after == UNPAID


def test_a_server_that_says_when_is_busy() -> None:
    """A 503 without a word of when is a failure; with it, the server is full."""
    assert type(refusal("peer", 503, "")) is NodeError
    busy = refusal("peer", 503, "", {"retry-after": "2"})
    assert (type(busy), busy.retry_after) == (NodeBusy, 2)


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
    access = Access(NodeSpec(url=url))
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
    """`whole` says that it is."""
    async with Provider(whole({"a": 1}), answer()) as provider, http_to(provider) as http:
        async with http.events(CHAT, {}) as events:
            assert events.whole
            assert [event.data async for event in events] == ['{"a":1}']
        async with http.events(CHAT, {}) as events:
            assert not events.whole


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
    async with server, Http(NodeSpec(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as http:
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
    async with Http(NodeSpec(url=f"http://{'a' * 70}.invalid")) as http:
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
        async with Http(spec) as http:
            with pytest.raises(NodeLost, match="in time"):
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
        Access(NodeSpec(url="http://h", headers={"x-a": "1\r\nx-b: 2"}))


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
        async with Http(NodeSpec(url="http://provider.invalid", proxy=address)) as http:
            assert await http.get("/v1/models") == {"data": []}
        assert asked == ["GET http://provider.invalid/v1/models"]


async def test_a_server_is_reached_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not on this machine, nor where NO_PROXY says so."""
    async with proxy() as (address, asked), Provider() as provider:
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("no_proxy", "inside.invalid")
        async with Http(NodeSpec(url="http://provider.invalid")) as http:
            await http.get("/v1/models")
        async with http_to(provider) as http:
            await http.get("/v1/models")
        async with Http(NodeSpec(url="http://inside.invalid")) as http:
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
    assert Access(NodeSpec(url="https://provider.invalid")).proxy == proxy


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


async def read_to_done(http: Http) -> None:
    async with http.events(CHAT, {}) as events:
        async for each in events:
            if each.data == "[DONE]":
                break


async def test_a_certificate_is_trusted_by_its_bundle_only(certificate: Path) -> None:
    """Without it the server is as good as lost."""
    async with secure_server(certificate) as (url, _):
        async with Http(NodeSpec(url=url, ca_bundle=str(certificate))) as http:
            await read_to_done(http)
        async with Http(NodeSpec(url=url)) as http:
            with pytest.raises(NodeLost, match="certificate"):
                await read_to_done(http)


async def test_a_secure_connection_is_used_again(certificate: Path) -> None:
    """If its answer was read to the end, of which [DONE] is the last event, but not the last byte."""
    async with secure_server(certificate) as (url, ports):
        async with Http(NodeSpec(url=url, ca_bundle=str(certificate))) as http:
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
            Http(NodeSpec(url="https://h", ca_bundle=str(path)))
