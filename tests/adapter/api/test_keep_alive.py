"""Streams whose nodes are silent: the head and comments are sent early, and what is known later comes at the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet import Limits
from subnet.aio import Sink
from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.errors import NodeLost
from subnet.generation import Delta
from subnet.protocols.base import Protocol
from subnet.protocols.mock import MockProtocol
from subnet.protocols.mock_chat import MockChatProtocol
from subnet.wire.messages import Generate
from tests.adapter.server.test_disconnect import NO_TIMEOUTS
from tests.fakes import ASK, events_of, gateway, saying

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
FIELDS: dict[str, dict[str, Any]] = {CHAT: ASK, TEXT: {"model": "mock", "prompt": "Hello"}}
COMMENT = b": keep-alive\n\n"
OFTEN = Settings(sse_keep_alive=0.02, access_log=True)


class Gated(MockProtocol):
    """Starts an answer, or ends it with `error`, only when `may` is released."""

    def __init__(self, text: str, *, error: Exception | None = None, **card: Any) -> None:
        super().__init__([*text.encode()], **card)
        self.may = asyncio.Semaphore(0)
        self._error = error

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        await self.may.acquire()
        if self._error is not None:
            raise self._error
        async for delta in super().rpc_inference_stream(request):
            yield delta


class GatedChat(MockChatProtocol):
    """Starts an answer only when `may` is released."""

    def __init__(self, text: str) -> None:
        super().__init__([text])
        self.may = asyncio.Semaphore(0)

    async def rpc_chat(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        await self.may.acquire()
        return await super().rpc_chat(request, emit)


class Body:
    """Body of a streamed response as it arrives."""

    def __init__(self, response: httpx.Response) -> None:
        self.text = b""
        self._parts = response.aiter_raw()

    async def until(self, text: bytes, count: int = 1) -> None:
        while self.text.count(text) < count:
            self.text += await anext(self._parts)

    async def rest(self) -> bytes:
        self.text += b"".join([part async for part in self._parts])
        return self.text


@asynccontextmanager
async def streaming(
    *nodes: Protocol, path: str = CHAT, settings: Settings = OFTEN, limits: Limits = NO_TIMEOUTS, **fields: Any
) -> AsyncIterator[tuple[httpx.Response, Body]]:
    """Send a request for a stream and yield the response when its head has arrived."""
    async with gateway(*nodes, settings=settings, limits=limits) as url, httpx.AsyncClient(base_url=url) as http:
        async with asyncio.timeout(10):
            async with http.stream("POST", path, json={**FIELDS[path], "stream": True, **fields}) as response:
                yield response, Body(response)


def text_of(body: bytes) -> str:
    choices = [choice for event in events_of(body)[:-1] for choice in event["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("node", [Gated, GatedChat])
async def test_before_the_first_token(node: type[Gated | GatedChat], path: str) -> None:
    """Head and comments are sent before the first token; the nodes are named at the end."""
    slow = node("Hi")
    async with streaming(slow, path=path) as (response, body):
        await body.until(COMMENT, 3)
        assert not body.text.replace(COMMENT, b"")
        slow.may.release()
        await body.rest()
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-request-id"]
    assert "x-subnet-nodes" not in response.headers
    assert text_of(body.text) == "Hi"
    comment = f": x-subnet-nodes: {slow.peer}\n: x-subnet-switches: 0\n\n".encode()
    assert body.text.endswith(comment + b"data: [DONE]\n\n")


async def test_what_the_request_alone_decides_is_in_the_early_head() -> None:
    """The early head names ignored parameters."""
    slow = Gated("Hi")
    async with streaming(slow, zeta=1) as (response, body):
        await body.until(COMMENT)
        slow.may.release()
        await body.rest()
    assert response.headers["x-ignored-params"] == "zeta"
    assert b"zeta" not in body.text


async def test_what_takes_long_to_find_out_comes_at_the_end() -> None:
    """Headers that are known only after the early head are in the comment at the end."""

    class SlowPrompt(Gated):
        async def rpc_artefact(self, sha256: str) -> bytes:
            await self.may.acquire()
            return await super().rpc_artefact(sha256)

    slow = SlowPrompt("Hi")
    async with streaming(slow, zeta=1) as (response, body):
        await body.until(COMMENT)
        assert not slow.requests
        slow.may.release()
        slow.may.release()
        await body.rest()
    assert "x-ignored-params" not in response.headers
    assert b"\n\n: x-ignored-params: zeta\n: x-subnet-nodes: mock\n" in body.text


async def test_an_error_after_the_early_head(caplog: pytest.LogCaptureFixture) -> None:
    """An error is the last event then, without [DONE], and the access log has its code."""
    slow = Gated("", error=NodeLost("gone"))
    limits = Limits(first_token_timeout=3600, max_attempts=1, queue_timeout=0, backoff=0.001)
    with caplog.at_level(logging.INFO, "adapter.access"):
        async with streaming(slow, limits=limits) as (response, body):
            await body.until(COMMENT)
            slow.may.release()
            await body.rest()
    *_, last = body.text.removesuffix(b"\n\n").split(b"\n\n")
    assert response.status_code == 200
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "node_failed"
    lines = [json.loads(record.message) for record in caplog.records if record.name == "adapter.access"]
    assert [(line["status"], line["error"]) for line in lines] == [(200, "node_failed")]


async def test_an_early_error_has_a_status() -> None:
    """An error before the interval is over is an ordinary error response."""
    limits = Limits(max_attempts=1, queue_timeout=0, backoff=0.001)
    settings = Settings(sse_keep_alive=3600)
    async with streaming(MockProtocol([NodeLost("gone")]), limits=limits, settings=settings) as (response, body):
        await body.rest()
    assert response.status_code == 503
    assert json.loads(body.text)["error"]["code"] == "node_failed"


async def test_while_waiting_for_capacity() -> None:
    """A request that waits for a full node gets comments, and its answer when there is capacity."""
    slow = Gated("Hi", capacity=1)
    async with gateway(slow, settings=OFTEN, limits=NO_TIMEOUTS) as url, httpx.AsyncClient(base_url=url) as http:
        request = {**ASK, "stream": True}
        async with asyncio.timeout(10), http.stream("POST", CHAT, json=request) as first:
            running = Body(first)
            await running.until(COMMENT)
            async with http.stream("POST", CHAT, json=request) as second:
                waiting = Body(second)
                await waiting.until(COMMENT, 2)
                slow.may.release()
                await running.rest()
                slow.may.release()
                assert text_of(await waiting.rest()) == "Hi"


async def test_while_text_is_held_back() -> None:
    """Tokens that may be part of a stop string are no output."""
    may = asyncio.Semaphore(0)

    class Holding(MockProtocol):
        async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
            yield Delta(0, list(b"ab"))
            await may.acquire()
            yield Delta(0, list(b"c"), finish_reason="stop")

    async with streaming(Holding(), stop=["abX"]) as (_, body):
        await body.until(COMMENT, 2)
        assert not body.text.replace(COMMENT, b"")
        may.release()
        assert text_of(await body.rest()) == "abc"


async def test_a_fallback_after_the_early_head() -> None:
    """Another model can still answer after the early head."""
    slow, other = Gated("", error=NodeLost("gone"), peer="slow"), saying("Hi", peer="other", model="other")
    settings = Settings(sse_keep_alive=0.02, fallbacks={"mock": ("other",)})
    async with streaming(slow, other, settings=settings) as (_, body):
        await body.until(COMMENT)
        for _ in range(20):
            slow.may.release()
        await body.rest()
    assert text_of(body.text) == "Hi"
    comment = next(part for part in body.text.split(b"\n\n") if part.startswith(b": x-subnet-nodes"))
    nodes = comment.partition(b"\n")[0].removeprefix(b": x-subnet-nodes: ").split(b", ")
    assert (nodes[0], nodes[-1]) == (b"slow", b"other")
    assert body.text.endswith(comment + b"\n\ndata: [DONE]\n\n")
