"""A client that goes away, at any moment, stops the work on the node and leaves nothing behind."""

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
from subnet.wire.messages import Accepted, Generate
from tests.fakes import ASK, gateway

# No timeout of the gateway's own may end what the client's leaving should end.
PATIENT = Limits(first_token_timeout=3600, inter_token_timeout=3600, retry_timeout=3600)

Steps = Callable[[Generate], Iterator[Step]]


class Watched(MockProtocol):
    """Tells when a stream began, and when it was closed."""

    def __init__(
        self, script: Sequence[Step] | Steps, *, artefact: bytes = BYTE_LEVEL, context_length: int = 4096
    ) -> None:
        super().__init__(script, artefact=artefact, context_length=context_length)  # type: ignore[arg-type]
        self.began = asyncio.Event()
        self.closed = asyncio.Event()

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
        self.began.set()
        try:
            async with aclosing(super().rpc_inference_stream(request)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.closed.set()


@asynccontextmanager
async def client(
    url: str, *, stream: bool = False, fields: dict[str, Any] | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection on which the request has been sent."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps(fields or {**ASK, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
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
    """While nothing has been answered yet."""
    node = Watched([Pause()])
    async with gateway(node, limits=PATIENT) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=stream):
            await node.began.wait()
        await gone(node, before)


async def test_after_a_long_request() -> None:
    """One that fills the server's buffer at once, so that it stops reading for a while."""
    node = Watched([Pause()], context_length=10**6)
    async with gateway(node, limits=PATIENT) as url:
        host, port = url.removeprefix("http://").split(":")
        before = asyncio.all_tasks()
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({**ASK, "messages": [{"role": "user", "content": "long " * 30_000}]}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        await reader.readuntil(b"100 Continue")
        writer.write(body)
        await node.began.wait()
        writer.close()
        await gone(node, before)


async def test_mid_answer_streamed() -> None:
    """While the node thinks about its next token."""
    node = Watched([65, Pause()])
    async with gateway(node, limits=PATIENT) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=True) as (reader, _):
            await reader.readuntil(b'"content":"A"')
        await gone(node, before)


async def test_mid_answer_not_streamed() -> None:
    """While half an answer waits for its other half."""
    half = asyncio.Event()

    def script(request: Generate) -> Iterator[Step]:
        yield 65
        half.set()
        yield Pause()

    node = Watched(script)
    async with gateway(node, limits=PATIENT) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=False):
            await half.wait()
        await gone(node, before)


class Wordy(Watched):
    """Says more at once than the buffers between server and client take, and then has `went_on`."""

    def __init__(self) -> None:
        self.went_on = False
        long = TokenizerArtefact(
            pieces=[*(bytes((byte,)) for byte in range(256)), b"x" * 2**20],
            control=[],
            pattern=r"[\s\S]",
            merges=list(range(256)),
        )
        super().__init__(self._steps, artefact=long.to_bytes())

    def _steps(self, request: Generate) -> Iterator[Step]:
        yield [256] * 64
        yield 65
        self.went_on = True
        yield Pause()


async def test_while_a_send_is_blocked() -> None:
    """A client that stops reading does not hold its node up, and leaving then ends it all the same."""
    node = Wordy()
    async with gateway(node, limits=PATIENT) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=True) as (reader, _):
            await reader.readuntil(b"xxxx")
            while not node.went_on:
                await asyncio.sleep(0)
        await gone(node, before)


async def test_what_a_slow_client_has_not_taken_waits_for_it() -> None:
    """All of it arrives, in order, however long the buffers between were full."""
    node = Wordy()
    async with gateway(node, limits=PATIENT) as url, client(url, stream=True) as (reader, _):
        while not node.went_on:
            await asyncio.sleep(0)
        body = bytearray()
        while b'"content":"A"' not in body[-1000:]:
            body += await reader.read(65536)
        assert body.count(b"x" * 2**20) == 64


class Impatient(HttpProtocol):
    patience = 0.1


async def test_never_reads() -> None:
    """A client that stays but stops reading is cut off in the end."""
    node = Wordy()
    async with gateway(node, limits=PATIENT, http=Impatient) as url:
        before = asyncio.all_tasks()
        async with client(url, stream=True) as (reader, _):
            await reader.readuntil(b"xxxx")
            await gone(node, before)


async def test_while_the_request_is_sent() -> None:
    """A client that never sends the whole of its request is forgotten."""
    node = Watched([65])
    async with gateway(node, limits=PATIENT) as url:
        host, port = url.removeprefix("http://").split(":")
        before = asyncio.all_tasks()
        reader, writer = await asyncio.open_connection(host, int(port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        writer.write(head + b"content-length: 100\r\n\r\n")
        # The head is answered with this as soon as somebody wants the body: the handler runs.
        await reader.readuntil(b"100 Continue")
        tasks = asyncio.all_tasks() - before
        writer.close()
        done, _ = await asyncio.wait(tasks, timeout=5)
        assert done == tasks
    assert node.requests == []


async def test_others_go_on() -> None:
    """One client's leaving is nothing to another's answer on the same node."""
    proceed = asyncio.Event()

    class Waits(MockProtocol):
        async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Accepted | Delta, None]:
            yield Delta(0, [65])
            await proceed.wait()
            yield Delta(0, [66], finish_reason="stop")

    async with gateway(Waits(), limits=PATIENT) as url, client(url, stream=True) as (stays, _):
        async with client(url, stream=True) as (leaves, _):
            await leaves.readuntil(b'"content":"A"')
            await stays.readuntil(b'"content":"A"')
        proceed.set()
        await stays.readuntil(b'"content":"B"')
        await stays.readuntil(b"[DONE]")
