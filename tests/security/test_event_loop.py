"""No request stops the event loop, with which all streams wait: not even the largest one of each endpoint."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from adapter.api.routes import ROUTES
from adapter.config import Settings
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol
from subnet.tensors import TokenIds
from tests.adapter.server.test_disconnect import NO_TIMEOUTS
from tests.fakes import gateway

MAX_BODY = 2 * 2**20
SETTINGS = Settings(access_log=False, max_body=MAX_BODY)
DIMENSIONS = 1536
# Seconds of processor time of the event loop's thread: several times as much as the longest iteration of any request
# uses. Unlike the time on a clock, it does not depend on what else the machine is doing.
LONG = 0.1

FIELDS: dict[str, dict[str, Any]] = {
    "chat of one message": {"messages": [{"role": "user", "content": "@"}], "max_tokens": 1, "return_token_ids": True},
    "chat of many messages": {
        "messages": [{"role": "user" if number % 2 == 0 else "assistant", "content": "@"} for number in range(4095)],
        "max_tokens": 1,
    },
    "tools": {
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "tools": [
            {"type": "function", "function": {"name": f"f{number}", "description": "@", "parameters": {}}}
            for number in range(128)
        ],
    },
    "unknown members": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "metadata": {"x": "@"}},
    "blocks": {
        "system": [{"type": "text", "text": "@"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "@"}] * 1024}],
        "max_tokens": 1,
    },
    "tools of messages": {
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "tools": [{"name": f"f{number}", "description": "@", "input_schema": {}} for number in range(512)],
    },
    "one prompt": {"prompt": "@", "max_tokens": 1, "echo": True, "return_token_ids": True},
    "many prompts": {"prompt": ["@"] * 2048, "max_tokens": 1, "echo": True},
    "short prompts": {"prompt": ["a"] * 2048, "max_tokens": 1},
    "token ids": {"prompt": [7] * (MAX_BODY // 2 - 100), "max_tokens": 1, "return_token_ids": True},
    "prompt logprobs": {"prompt": ["a" * 100] * 200, "max_tokens": 0, "echo": True, "logprobs": 5},
    "many inputs": {"input": ["a"] * 2048},
    "large inputs": {"input": ["@"] * 2048, "encoding_format": "base64"},
    "texts of tokens": {"prompt": "@", "return_token_strs": True},
    "tokens of messages": {"messages": [{"role": "user", "content": "@"}]},
    "tokens": {"tokens": [7] * (MAX_BODY // 2 - 100)},
}
"""Largest requests of different kinds; "@" is a text that fills the body."""

LARGEST: Mapping[str, Sequence[str]] = {
    "/v1/chat/completions": ["chat of one message", "chat of many messages", "tools", "unknown members"],
    "/v1/chat/completions/render": ["chat of one message", "chat of many messages", "tools"],
    "/v1/messages": ["chat of one message", "chat of many messages", "blocks", "tools of messages"],
    "/v1/messages/count_tokens": ["chat of one message", "blocks", "tools of messages"],
    "/v1/completions": ["one prompt", "many prompts", "short prompts", "token ids", "prompt logprobs"],
    "/v1/embeddings": ["many inputs", "large inputs"],
    "/tokenize": ["texts of tokens", "tokens of messages"],
    "/detokenize": ["tokens"],
}


class Embedding(MockProtocol):
    """Node with vectors of many dimensions."""

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        return np.full((len(inputs), DIMENSIONS), DIMENSIONS**-0.5, np.float32)


class Heartbeat:
    """Counts the iterations of the event loop, and those in which its thread used more than LONG."""

    def __init__(self) -> None:
        self.turns = self.long_turns = 0
        self.longest = 0.0

    async def __aenter__(self) -> Heartbeat:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def check(self) -> None:
        print(f"{self.turns} iterations, the longest used {self.longest * 1000:.0f} ms")
        assert self.turns
        assert self.long_turns == 0, f"{self.longest:.3f} s"

    async def _beat(self) -> None:
        used = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            before, used = used, time.thread_time()
            self.turns += 1
            self.long_turns += used - before > LONG
            self.longest = max(self.longest, used - before)


def body_of(fields: Mapping[str, Any]) -> bytes:
    """Return the JSON of a request, of at most MAX_BODY bytes, with a long text for each "@"."""
    body = msgspec.json.encode({"model": "mock", **fields})
    length = (MAX_BODY - len(body)) // max(1, body.count(b'"@"'))
    body = body.replace(b'"@"', b'"' + b"a" * length + b'"')
    assert len(body) <= MAX_BODY
    return body


def post(url: str, path: str, body: bytes) -> tuple[int, int]:
    """Send a request in this thread, and return the status and size of the response."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=100)
    connection.request("POST", path, body)
    response = connection.getresponse()
    size = len(response.read())
    connection.close()
    return response.status, size


async def beside(work: Callable[[str], Awaitable[Any]]) -> Heartbeat:
    """Do some work with a gateway, given its address, and return the heartbeat of its event loop meanwhile."""
    able = Capabilities(embeddings=True, prompt_logprobs=True, top_logprobs=20)
    node = Embedding([65], capabilities=able, context_length=4 * MAX_BODY, capacity=2048)
    async with gateway(node, settings=SETTINGS, limits=NO_TIMEOUTS, check=False) as url:
        # The tokenizer is loaded.
        await asyncio.to_thread(post, url, "/tokenize", body_of({"prompt": "Hi"}))
        async with Heartbeat() as heart:
            await work(url)
    return heart


@pytest.fixture(autouse=True, scope="module")
def frozen_objects() -> None:
    """Exclude the objects of all other tests from garbage collection, as a gateway does with those of its startup."""
    gc.collect()
    gc.freeze()


def test_every_endpoint_with_a_body_has_a_largest_request() -> None:
    """A new endpoint needs an entry in this file."""
    assert {route.path for route in ROUTES if route.request} == set(LARGEST)


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, kinds in LARGEST.items() for kind in kinds])
async def test_the_largest_request(path: str, kind: str) -> None:
    """While the largest request of an endpoint is served, no iteration of the event loop takes long."""

    async def work(url: str) -> None:
        status, size = await asyncio.to_thread(post, url, path, body_of(FIELDS[kind]))
        assert status in (200, 400), status
        print(f"{path}, {kind}: status {status}, {size:,} bytes")

    heart = await beside(work)
    heart.check()


async def test_requests_without_a_body() -> None:
    """The other endpoints take no long iteration either."""

    async def work(url: str) -> None:
        for route in ROUTES:
            if route.request is None:
                connection = HTTPConnection(urlsplit(url).netloc, timeout=100)
                await asyncio.to_thread(connection.request, route.method, route.path.replace("{model}", "mock"))
                assert (await asyncio.to_thread(connection.getresponse)).status == 200, route.path
                connection.close()

    heart = await beside(work)
    heart.check()
