"""A gateway on a socket in front of scripted nodes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvicorn

from adapter.app import build_app
from adapter.config import Settings
from adapter.server.protocol import HttpProtocol
from subnet import Limits, RemoteManager, SessionManager
from subnet.listening import bind
from subnet.protocols.base import Protocol
from subnet.protocols.mock import MockProtocol, Step
from tests.recording import Recording

PROMPT = "User: Hello\nAssistant:"
"""Prompt of ASK with the default template. A scripted node's tokens are bytes."""
ASK: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "Hello"}]}
QUICK = Limits(
    first_token_timeout=0.2,
    prefill_rate=1e6,
    inter_token_timeout=0.2,
    retry_timeout=1.0,
    max_attempts=2,
    backoff=0.001,
    queue_timeout=0.2,
)


def saying(text: str, *more: Step, **card: Any) -> MockProtocol:
    """Create a node that answers `text`, one byte per token, and then plays the steps in `more`."""
    return MockProtocol([*text.encode(), *more], **card)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def gateway(
    *nodes: Protocol,
    settings: Settings | None = None,
    limits: Limits = QUICK,
    http: type[HttpProtocol] = HttpProtocol,
    check: bool = True,
) -> AsyncIterator[str]:
    """Run the application with a real server on loopback and yield its URL. At the end, everything it sent is
    checked, unless `check` is False.
    """
    recording = Recording(http)
    listener = bind("127.0.0.1", 0)
    async with RemoteManager(nodes, probe_interval=0.05) as remotes:
        if nodes:
            await remotes.ready()
        app = build_app(settings or Settings(access_log=False), remotes, SessionManager(remotes, limits=limits))
        config = uvicorn.Config(
            app,
            http=recording.protocol if check else http,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        server = _Server(config)
        task = asyncio.create_task(server._serve(sockets=[listener]))
        await server.up.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
    if check:
        recording.check()


def events_of(body: bytes) -> list[Any]:
    """Return the decoded data of a stream's events, with [DONE] as text and without comments."""
    assert body.endswith(b"\n\n")
    events = body.decode().removesuffix("\n\n").split("\n\n")
    datas = [event.removeprefix("data: ") for event in events if not event.startswith(":")]
    return [data if data == "[DONE]" else msgspec.json.decode(data) for data in datas]
