"""Requests whose Host or Transfer-Encoding header HTTP does not allow, though a parser may."""

from __future__ import annotations

import asyncio
import json

import pytest

from adapter.config import Settings
from tests.adapter.server.test_http_protocol import connect
from tests.fakes import ASK, gateway, saying

BODY = json.dumps(ASK).encode()
GET = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def answer(head: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the response to a request, behind which another one is sent."""
    settings = Settings(access_log=False, allowed_hosts=("*",))
    async with gateway(saying("Hi"), settings=settings) as url, asyncio.timeout(10):
        reader, writer = await connect(url)
        writer.write(head.encode("latin-1") + b"\r\n" + body + GET.encode())
        start = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = start.removesuffix("\r\n\r\n").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if headers.get("connection") == "close":
            text = await reader.read()
            assert b"HTTP/1.1" not in text
        else:
            text = await reader.readuntil(b"HTTP/1.1 200")
        writer.close()
    return int(status.split()[1]), headers, text


def refused(status: int, headers: dict[str, str], text: bytes) -> str:
    """Check the response to a request that is not valid HTTP; return its message."""
    error = json.loads(text)["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_http", None)
    assert headers["x-request-id"]
    assert headers["connection"] == "close"
    return f"{status} {error['message']}"


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/nowhere"])
@pytest.mark.parametrize(
    "hosts",
    ["", "host: a\r\nhost: a\r\n", "Host: a\r\nHost: b\r\n", "host: a b\r\n", "host: a/b\r\n", "host: u@a\r\n"],
)
async def test_a_host_that_is_not_allowed(hosts: str, path: str) -> None:
    """Without a host, with two, even the same, and with an invalid one, the request gets status 400."""
    message = refused(*await answer(f"GET {path} HTTP/1.1\r\n{hosts}"))
    assert message.startswith("400 Invalid HTTP request: ")


@pytest.mark.parametrize(
    "start",
    [
        "GET /healthz HTTP/1.1\r\nHOST: A.example:80\r\n",
        "GET /healthz HTTP/1.1\r\nhost: [::1]:8000\r\n",
        "GET /healthz HTTP/1.1\r\nhost:\r\n",
        "GET http://a/healthz HTTP/1.1\r\nhost: a\r\n",
        "GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n",
    ],
)
async def test_a_host_that_is_allowed(start: str) -> None:
    """Names, addresses and an empty host are accepted; HTTP/1.0 needs none."""
    status, _, _ = await answer(start)
    assert status == 200


@pytest.mark.parametrize(
    ("codings", "status"),
    [
        ("transfer-encoding: gzip, chunked\r\n", 501),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501),
        ('transfer-encoding: x;y="a,b", chunked\r\n', 501),
        ("transfer-encoding: chunked, gzip\r\n", 400),
        ("transfer-encoding: gzip\r\n", 400),
        ("transfer-encoding: identity\r\n", 400),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 400),
        ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", 400),
        ("content-length: 3\r\ncontent-length: 4\r\n", 400),
    ],
)
async def test_a_body_whose_end_or_form_is_unclear(codings: str, status: int) -> None:
    """Only chunks are accepted, and one length."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    message = refused(*await answer(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{codings}", body))
    assert message.startswith(f"{status} ")


async def test_chunks_of_http_1_0() -> None:
    """HTTP/1.0 has no chunks."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    message = refused(*await answer("POST /v1/chat/completions HTTP/1.0\r\ntransfer-encoding: chunked\r\n", body))
    assert message.startswith("400 ")


@pytest.mark.parametrize("coding", ["chunked", "Chunked", ", chunked"])
async def test_chunks(coding: str) -> None:
    """The name of the coding may have any case, and a list may have empty items."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: {coding}\r\n"
    status, _, _ = await answer(head, body)
    assert status == 200
