"""Errors over HTTP: status, headers and OpenAI's error envelope."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from adapter.api.common.access_log import Record
from adapter.api.common.body import read_body
from adapter.api.common.http_request import Request
from adapter.config import Settings
from adapter.errors import BodyTooSlow, to_http_error
from adapter.server.asgi import Receive
from adapter.server.response_writer import attach_writer
from subnet import errors
from subnet.budget import Budget
from subnet.errors import EngineFailed, InvalidRequest, NodeBusy, NodeLost, SettingsError, SubnetError
from subnet.listening import bind
from subnet.protocols.mock import MockProtocol, Pause, Step
from subnet.wire.messages import Generate
from tests.fakes import ASK, PROMPT, events_of, gateway, saying

CHAT = "/v1/chat/completions"


async def call(
    *nodes: MockProtocol,
    method: str = "POST",
    path: str = CHAT,
    settings: Settings | None = None,
    **options: Any,
) -> httpx.Response:
    async with gateway(*nodes, settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.request(method, path, **options)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error; fails unless the response has OpenAI's error envelope and a request id."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


def kind(response: httpx.Response) -> tuple[int, str, str | None, str | None]:
    error = error_of(response)
    return response.status_code, error["type"], error["param"], error["code"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "other"}, 404, "model", "model_not_found"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"temperature": 3}, 400, "temperature", "invalid_value"),
        # The scripted nodes' vocabulary has 257 tokens.
        ({"stop_token_ids": [256, 257], "min_tokens": 1}, 400, "stop_token_ids", "invalid_value"),
        ({"logit_bias": {"257": 1}}, 400, "logit_bias.257", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "messages", "context_length_exceeded"),
    ],
)
async def test_invalid_requests(stream: bool, fields: dict[str, Any], status: int, param: str, code: str) -> None:
    """An invalid request gets an error status with the parameter and code, also if a stream was requested."""
    response = await call(saying("Hi"), json={**ASK, "stream": stream, **fields})
    assert kind(response) == (status, "invalid_request_error", param, code)
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("body", [b"", b"{", b'{"model": "\xff"}', b'"\\ud80"'])
async def test_malformed_body(body: bytes) -> None:
    """A body that is not valid JSON is rejected as invalid_json."""
    assert kind(await call(saying("Hi"), content=body)) == (400, "invalid_request_error", None, "invalid_json")


async def test_a_request_that_brings_down_nodes() -> None:
    """A request that fails in the engines of two nodes is 500 and asks no third; others are served, and it is not."""

    def script(request: Generate) -> list[Step]:
        return [EngineFailed("broke")] if request.text and "bomb" in request.text else [*b"Hi"]

    nodes = [MockProtocol(script, peer=peer) for peer in "abc"]
    bomb = {**ASK, "messages": [{"role": "user", "content": "bomb"}]}
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(2):
            assert kind(await client.post(CHAT, json=bomb)) == (500, "server_error", None, "repeated_failure")
        assert [(await client.post(CHAT, json=ASK)).status_code for _ in range(3)] == [200] * 3
    assert sum(len(node.requests) for node in nodes) == 5


async def test_context_length_error_has_both_numbers() -> None:
    """The error for a prompt that is too long has the context length and the number of tokens."""
    node = saying("Hi", context_length=20)
    message = error_of(await call(node, json=ASK))["message"]
    assert "20 tokens" in message
    assert f"{len(PROMPT)} tokens" in message
    assert node.requests == []


async def test_unknown_model_is_named() -> None:
    """The error for an unknown model in GET /v1/models/{model} names it."""
    response = await call(saying("Hi"), method="GET", path="/v1/models/no/such")
    assert kind(response) == (404, "invalid_request_error", "model", "model_not_found")
    assert "'no/such'" in error_of(response)["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_too_large(chunked: bool) -> None:
    """A body above max_body is rejected, chunked or not, and the connection can be used again."""
    body = b" " * 200_000

    async def pieces() -> Any:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    settings = Settings(max_body=100_000, access_log=False)
    async with gateway(saying("Hi"), settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, content=pieces() if chunked else body)
        assert kind(response) == (413, "invalid_request_error", None, "request_too_large")
        assert "the maximum is 100000 bytes" in error_of(response)["message"]
        assert (await client.post(CHAT, json=ASK)).status_code == 200


async def raw(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Send these bytes, and return the head of the response and the error in its body."""
    async with gateway(saying("Hi")) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        writer.close()
    assert b"x-request-id: req_" in head
    assert b"content-type: application/json" in head
    return head, body["error"]


async def test_too_large_body_is_rejected_before_it_is_sent() -> None:
    """A declared content length above the maximum is rejected at once, without "100 Continue" or the body."""
    head, error = await raw(
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {10**12}\r\n\r\n".encode()
    )
    assert head.startswith(b"http/1.1 413")
    assert error["code"] == "request_too_large"


@pytest.mark.parametrize(
    "data",
    [
        b"FOO / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
async def test_not_http(data: bytes) -> None:
    """Input that is not a valid HTTP request gets an error in OpenAI's envelope with a request id, and the connection
    is closed.
    """
    head, error = await raw(data)
    assert head.startswith(b"http/1.1 400")
    assert b"connection: close" in head
    assert error["code"] == "invalid_http"


async def test_a_page_can_read_why_its_request_is_not_http() -> None:
    """The error for invalid HTTP has the headers with which a page of an allowed origin may read it; others may not."""
    request = "POST / HTTP/1.1\r\nhost: localhost\r\norigin: {}\r\ncontent-length: many\r\n\r\n"
    for origin, readable in (("http://localhost:3000", True), ("https://evil.example", False)):
        head, error = await raw(request.format(origin).encode())
        assert error["code"] == "invalid_http"
        assert (f"access-control-allow-origin: {origin}".encode() in head) == readable
        assert (b"access-control-expose-headers" in head) == readable


async def test_a_url_that_is_too_long() -> None:
    """A URL of more than 64 KiB gets status 431, even if it arrives at once."""
    head, error = await raw(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert head.startswith(b"http/1.1 431")
    assert error["code"] == "headers_too_large"


async def stops() -> Any:
    await asyncio.Event().wait()


async def trickles() -> Any:
    await asyncio.sleep(0.002)
    return {"type": "http.request", "body": b"x", "more_body": True}


def bursts() -> Receive:
    """Return a function that receives most of a body at once, and then one byte from time to time."""
    parts = iter([b"x" * 4000])

    async def receive() -> Any:
        return {**await trickles(), "body": next(parts, b"x")}

    return receive


@pytest.mark.parametrize("receive", [stops, trickles, bursts()], ids=["stops", "trickles", "bursts"])
async def test_request_body_timeout(receive: Receive) -> None:
    """A request body that stops arriving, or arrives at less than the minimum rate, be it after a fast start, is
    rejected with 408 after a timeout, and the connection is closed.
    """
    scope: Any = {"type": "http", "headers": [(b"content-length", b"5")]}
    writer: Any = SimpleNamespace(request_received=False)
    attach_writer(scope, writer)
    services: Any = SimpleNamespace(memory=Budget("Bytes", 10_000))
    request = Request(scope, receive, services, Record("r", 0.0))
    with pytest.raises(BodyTooSlow) as caught:
        await read_body(request, 10**6, grace=0.05)
    answer = to_http_error(caught.value)
    assert (answer.status, answer.error.code) == (408, "request_timeout")
    assert answer.headers == {"connection": "close"}


async def test_chat_template_that_does_not_compile(caplog: pytest.LogCaptureFixture) -> None:
    """A chat template that does not compile is logged once, and requests to its model get a 503."""
    node = saying("Hi", chat_template="{% nope %}")
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(3):
            assert kind(await client.post(CHAT, json=ASK)) == (503, "server_error", "model", "model_unusable")
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "model 'mock' cannot be loaded: the chat template does not compile" in record.message


@pytest.mark.parametrize(
    ("first", "second", "status"), [(NodeLost("gone"), Pause(), 504), (Pause(), NodeLost("gone"), 503)]
)
async def test_last_failure_is_reported(first: Any, second: Any, status: int) -> None:
    """If all attempts fail, the response has the error of the last one."""
    script = iter([first, second])
    nodes = [MockProtocol(lambda request: [next(script)], peer=peer) for peer in "ab"]
    assert (await call(*nodes, json=ASK)).status_code == status


def test_address_that_cannot_be_listened_on() -> None:
    """An address that cannot be listened on raises an error with the reason in words."""
    with pytest.raises(SettingsError, match=r"^cannot listen on nosuch.invalid:0: (?!Unknown)[\w ]+$"):
        bind("nosuch.invalid", 0)


async def test_body_at_the_limit() -> None:
    """A body of exactly max_body bytes is accepted."""
    body = json.dumps(ASK).encode().ljust(2000)
    assert (await call(saying("Hi"), settings=Settings(max_body=2000), content=body)).status_code == 200


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/chat/completions/x", "/docs", "/schema"])
async def test_unknown_url(path: str) -> None:
    """An unknown path gets a 404 that names method and path."""
    response = await call(method="GET", path=path)
    assert kind(response) == (404, "invalid_request_error", None, "unknown_url")
    assert f"GET {path}" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST, OPTIONS"),
        ("DELETE", CHAT, "POST, OPTIONS"),
        ("POST", "/v1/models", "HEAD, GET, OPTIONS"),
        ("DELETE", "/v1/models/org/mock", "HEAD, GET, OPTIONS"),
    ],
)
async def test_wrong_method(method: str, path: str, allowed: str) -> None:
    """A method that a path does not support gets a 405 with the allowed ones."""
    response = await call(method=method, path=path)
    assert kind(response) == (405, "invalid_request_error", None, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ([NodeLost("10.0.0.7 is gone")], 503, None),
        ([EngineFailed("segfault at 0x0")], 503, None),
        ([NodeBusy("full", retry_after=3)], 503, "engine_overloaded"),
        ([Pause()], 504, "model_timeout"),
        ([InvalidRequest("no such grammar", param="response_format")], 400, "invalid_value"),
        ([ZeroDivisionError("secret")], 500, "internal_error"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_failures_before_the_first_token(
    stream: bool, script: Sequence[Any], status: int, code: str | None
) -> None:
    """A failure before the first token is an error response with its own status, and discloses no internals."""
    response = await call(MockProtocol(script), json={**ASK, "stream": stream})
    assert response.status_code == status
    error = error_of(response)
    assert code in (None, error["code"])
    assert not any(word in error["message"] for word in ("10.0.0.7", "segfault", "secret", "mock"))
    assert ("retry-after" in response.headers) == (status == 503)


async def test_no_node() -> None:
    """Without nodes the response is a 503 that asks clients to retry after a second, in both headers that they read."""
    response = await call(json=ASK)
    assert kind(response) == (503, "server_error", "model", "no_node_available")
    assert response.headers["retry-after"] == "1"
    assert response.headers["retry-after-ms"] == "1000"


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Pause(), "model_timeout"), (NodeLost("gone"), None), (ZeroDivisionError("x"), "internal_error")],
)
async def test_failure_mid_stream(trouble: Any, code: str | None) -> None:
    """A failure in the middle of a stream ends it with an error event and without [DONE]."""
    response = await call(saying("Hi", trouble), json={**ASK, "stream": True})
    assert response.status_code == 200
    *chunks, last = events_of(response.content)
    assert isinstance(last, dict)
    assert last.keys() == {"error"}
    assert code in (None, last["error"]["code"])
    assert all("choices" in chunk for chunk in chunks)


@pytest.mark.parametrize(("trouble", "status"), [(Pause(), 504), (ZeroDivisionError("x"), 500)])
async def test_failure_of_an_answer_that_is_not_streamed(trouble: Any, status: int) -> None:
    """A failure in the middle of an answer that is not streamed is an error response, without the partial text."""
    assert (await call(saying("Hi", trouble), json=ASK)).status_code == status


async def test_openai_client_raises_its_own_classes() -> None:
    """OpenAI's client raises its typed exceptions for our errors."""
    async with (
        gateway(saying("Hi", NodeLost("gone"))) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        messages: Any = ASK["messages"]
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="other", messages=messages)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        assert missing.value.request_id is not None
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="mock", messages=[])
        with pytest.raises(openai.APIError, match="No node could complete the request"):
            async for _ in await client.chat.completions.create(model="mock", messages=messages, stream=True):
                pass


async def test_unexpected_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is logged with its traceback and the request id."""
    node = MockProtocol([ZeroDivisionError("secret")])
    await call(node, json=ASK, headers={"x-request-id": "mine"})
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message == "request mine failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def tree(root: type[SubnetError]) -> list[type[SubnetError]]:
    return [root, *(found for child in root.__subclasses__() for found in tree(child))]


@pytest.mark.parametrize("error", tree(SubnetError), ids=lambda error: error.code)
def test_every_subnet_error_has_a_status(error: type[SubnetError]) -> None:
    """Every SubnetError has a status: below 500 for mistakes in the request or the choice of model and for rate limits,
    else 500 or above.
    """
    answer = to_http_error(error("words", retry_after=0.2, param="p"))
    limited = errors.RateLimited | errors.ClientLimited
    mistake = issubclass(error, errors.RequestError | errors.EndpointMissing | limited)
    assert (answer.status < 500) == mistake
    assert answer.error.code
    assert answer.headers in ({}, {"retry-after": "1", "retry-after-ms": "200"})
