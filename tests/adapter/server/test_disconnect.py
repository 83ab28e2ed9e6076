"""A client that disconnects, at any moment, stops the work on the node and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from adapter.server.protocol import HttpProtocol
from subnet import Limits
from subnet.generation import Delta
from subnet.node_info import TokenizerArtefact
from subnet.protocols.mock import BYTE_LEVEL, MockProtocol, Pause, Step
from subnet.wire.messages import Generate
from tests.fakes import ASK, gateway

# No timeout of the gateway may end what the disconnect should end.
NO_TIMEOUTS = Limits(first_token_timeout=3600, inter_token_timeout=3600, retry_timeout=3600)

Steps = Callable[[Generate], Iterator[Step]]


class Watched(MockProtocol):
    """Sets an event when a stream starts, and one when it is closed."""

    def __init__(
        self, script: Sequence[Step] | Steps, *, artefact: bytes = BYTE_LEVEL, context_length: int = 4096
    ) -> None:
        super().__init__(script, artefact=artefact, context_length=context_length)  # type: ignore[arg-type]
        self.began = asyncio.Event()
        self.closed = asyncio.Event()

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        self.began.set()
        try:
            async with aclosing(super().rpc_inference_stream(request)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.closed.set()


@asynccontextmanager
async def client(
    url: str, *, stream: bool = False, fields: dict[str, Any] | None = None, path: str = "/v1/chat/completions"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection and send the request."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps(fields or {**ASK, "stream": stream}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        yield reader, writer
    finally:
        writer.close()


async def gone(node: Watched, before: set[asyncio.Task[object]]) -> None:
    """Wait until the node's stream is closed and all tasks of the request have ended."""
    async with asyncio.timeout(5):
        await node.closed.wait()
        while left := {task for task in asyncio.all_tasks() - before if "RequestResponseCycle" in repr(task)}:
            await asyncio.wait(left)
    assert node.open == 0
    assert node.cancelled == 1
    leaked = [task for task in asyncio.all_tasks() - before if "adapter" in repr(task.get_coro())]
    assert leaked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_token(stream: bool) -> None:
    """A disconnect before the first token cancels the generation."""
    node = Watched([Pause()])
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=stream):
            await node.began.wait()
        await gone(node, before)


async def test_after_a_long_request() -> None:
    """A disconnect after a request that made the server pause reading cancels the generation."""
    node = Watched([Pause()], context_length=10**6)
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        host, port = url.removeprefix("http://").split(":")
        before = asyncio.all_tasks()
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({**ASK, "messages": [{"role": "user", "content": "long " * 30_000}]}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        await reader.readuntil(b"100 Continue")
        writer.write(body)
        await node.began.wait()
        writer.close()
        await gone(node, before)


async def test_mid_answer_streamed() -> None:
    """A disconnect between two tokens of a stream cancels the generation."""
    node = Watched([65, Pause()])
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=True) as (reader, _):
            await reader.readuntil(b'"content":"A"')
        await gone(node, before)


async def test_mid_answer_not_streamed() -> None:
    """A disconnect in the middle of an answer that is not streamed cancels the generation."""
    half = asyncio.Event()

    def script(request: Generate) -> Iterator[Step]:
        yield 65
        half.set()
        yield Pause()

    node = Watched(script)
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=False):
            await half.wait()
        await gone(node, before)


class Wordy(Watched):
    """Says more at once than the buffers between server and client take, and then sets `continued`."""

    def __init__(self) -> None:
        self.continued = False
        long = TokenizerArtefact(
            pieces=[*(bytes((byte,)) for byte in range(256)), b"x" * 4096],
            control=[],
            pattern=r"[\s\S]",
            merges=list(range(256)),
        )
        super().__init__(self._steps, artefact=long.to_bytes(), context_length=2**20)

    def _steps(self, request: Generate) -> Iterator[Step]:
        yield [256] * (2**25 // 4096)
        yield 65
        self.continued = True
        yield Pause()


async def test_while_a_send_is_blocked() -> None:
    """A client that stops reading does not block its node, and its disconnect still cancels the generation."""
    node = Wordy()
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=True) as (reader, _):
            await reader.readuntil(b"xxxx")
            while not node.continued:
                await asyncio.sleep(0)
        await gone(node, before)


async def test_a_slow_client_gets_everything() -> None:
    """Everything arrives in order after the buffers were full."""
    node = Wordy()
    async with gateway(node, limits=NO_TIMEOUTS) as url, client(url, stream=True) as (reader, _):
        while not node.continued:
            await asyncio.sleep(0)
        body = bytearray()
        while b'"content":"A"' not in body[-1000:]:
            body += await reader.read(65536)
        assert body.count(b"x" * 2**20) == 32


class ShortSendTimeout(HttpProtocol):
    send_timeout = 0.1


async def test_never_reads() -> None:
    """A client that stops reading is disconnected after the send timeout."""
    node = Wordy()
    async with gateway(node, limits=NO_TIMEOUTS, http=ShortSendTimeout) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=True) as (reader, _):
            await reader.readuntil(b"xxxx")
            await gone(node, before)


async def test_while_the_request_is_sent() -> None:
    """A disconnect before the request is complete ends the request's tasks."""
    node = Watched([65])
    async with gateway(node, limits=NO_TIMEOUTS) as url:
        host, port = url.removeprefix("http://").split(":")
        before = asyncio.all_tasks()
        reader, writer = await asyncio.open_connection(host, int(port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        writer.write(head + b"content-length: 100\r\n\r\n")
        # The server sends this once the handler reads the body.
        await reader.readuntil(b"100 Continue")
        tasks = asyncio.all_tasks() - before
        writer.close()
        done, _ = await asyncio.wait(tasks, timeout=5)
        assert done == tasks
    assert node.requests == []


async def test_other_clients_are_not_affected() -> None:
    """A disconnect does not affect another client's answer on the same node."""
    proceed = asyncio.Event()

    class Waits(MockProtocol):
        async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
            yield Delta(0, [65])
            await proceed.wait()
            yield Delta(0, [66], finish_reason="stop")

    async with gateway(Waits(), limits=NO_TIMEOUTS) as url, client(url, stream=True) as (stays, _):
        async with client(url, stream=True) as (leaves, _):
            await leaves.readuntil(b'"content":"A"')
            await stays.readuntil(b'"content":"A"')
        proceed.set()
        await stays.readuntil(b'"content":"B"')
        await stays.readuntil(b"[DONE]")
