"""A node as a process: from settings to a listening socket, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web

from subnet.authorizers import TokenAuthorizer
from subnet.engines.base import Engine
from subnet.errors import NodeError, SettingsError
from subnet.http.node_spec import NodeSpec
from subnet.node.server import Node
from subnet.node.settings import NodeSettings

Report = Callable[[str], None]
_CONCURRENCY = 4
SERVING = re.compile(r"serving (?P<model>.+) on (?P<address>http://\S+)$")
"""The line that says, to people and to a supervisor, that a node can be used."""


def make_engine(settings: NodeSettings, report: Report) -> Engine:
    """Blocks while a model is fetched. Raises SettingsError for one that cannot be had."""
    if settings.engine == "echo":
        from subnet.engines.echo import EchoEngine, EchoOptions

        options = EchoOptions(
            rate=settings.echo_rate,
            size=settings.echo_size,
            delay=settings.echo_delay,
            capacity=settings.concurrency or _CONCURRENCY,
            context_length=settings.context_length or EchoOptions().context_length,
        )
        return EchoEngine(settings.model_id or "echo", options)
    if settings.engine == "transformers":
        from subnet.engines.transformers import TransformersEngine

        if settings.model is None:
            raise SettingsError(
                "the transformers engine needs --model: a folder, or owner/repo on the Hugging Face hub"
            )
        return TransformersEngine(
            settings.model,
            model_id=settings.model_id,
            context_length=settings.context_length,
            capacity=settings.concurrency or _CONCURRENCY,
            threads=settings.threads,
            report=report,
        )
    if settings.engine != "llama.cpp":
        return _remote(settings.engine, _spec(settings))
    # Only here, so that a node of another kind needs no llama.cpp.
    from subnet.engines.llama_cpp import LlamaCppEngine
    from subnet.models.resolve import resolve

    return LlamaCppEngine(
        model_path=resolve(settings.model, report),
        model_id=settings.model_id,
        tokenizer_json=None if settings.tokenizer is None else Path(settings.tokenizer),
        context_length=settings.context_length,
        capacity=settings.concurrency or _CONCURRENCY,
        threads=settings.threads,
    )


def _remote(kind: Literal["vllm", "sglang", "llama-server"], spec: NodeSpec) -> Engine:
    if kind == "vllm":
        from subnet.engines.vllm import VllmEngine

        return VllmEngine(spec)
    if kind == "sglang":
        from subnet.engines.sglang import SglangEngine

        return SglangEngine(spec)
    from subnet.engines.llama_server import LlamaServerEngine

    return LlamaServerEngine(spec)


def _spec(settings: NodeSettings) -> NodeSpec:
    """The server that the engine asks. Raises SettingsError."""
    if settings.upstream is None:
        raise SettingsError(f"the {settings.engine} engine needs --upstream: the address of its server")
    served = settings.model_id or settings.model
    try:
        spec = NodeSpec(
            url=settings.upstream,
            models={} if served is None else {served: settings.model or ""},
            tokenizer=settings.tokenizer,
            context_length=settings.context_length,
            api_key_env=settings.upstream_key_env,
        )
    except ValueError as error:
        raise SettingsError(f"upstream: {error}") from error
    spec.check()
    return spec if settings.concurrency is None else msgspec.structs.replace(spec, concurrency=settings.concurrency)


async def run(settings: NodeSettings, report: Report) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends it at once. While a model is
    fetched or loaded, which nothing can interrupt, the first ends the whole process.

    `report` gets a line for a person at each step.
    """
    leave, end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: end.set() if leave.is_set() else leave.set())
    if settings.with_parent:
        loop.add_reader(sys.stdin.fileno(), _end_with, sys.stdin.fileno(), leave, end)
    async with contextlib.AsyncExitStack() as stack:
        with _ending(leave, report):
            engine = await asyncio.to_thread(make_engine, settings, report)
            report(_starting(settings))
            try:
                await stack.enter_async_context(engine)
            except NodeError as error:
                raise SettingsError(f"cannot start the {settings.engine} engine: {error.message}") from error
        node = Node(engine, TokenAuthorizer(settings.secret) if settings.secret else None)
        async with listening(node, settings.host, settings.port) as address:
            report(f"serving {engine.card.id} on {address}")
            await leave.wait()
            report("finishing running answers" if node.running else "stopping")
            await _first(node.drain(settings.drain_timeout), end.wait())


def _starting(settings: NodeSettings) -> str:
    if settings.engine == "echo":
        return "starting the echo engine"
    if settings.upstream is not None:
        return f"connecting to {settings.upstream}"
    return f"loading {settings.model or 'the demo model'}"


@contextlib.contextmanager
def _ending(leave: asyncio.Event, report: Report) -> Iterator[None]:
    """Inside the block, `leave` ends the whole process."""

    async def end() -> None:
        await leave.wait()
        report("stopping")
        # Python would wait for the thread that fetches or loads; nobody is served yet, so nothing else is owed.
        os._exit(0)

    ending = asyncio.create_task(end())
    try:
        yield
    finally:
        ending.cancel()


async def _first(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of them; the others are cancelled."""
    tasks = [asyncio.create_task(awaitable) for awaitable in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(node: Node, host: str, port: int) -> AsyncIterator[str]:
    """Serve `node` inside the block; gives its address, http://host:port. Raises SettingsError."""
    runner = web.AppRunner(node.app(), shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            hint = "; choose another port with --port" if error.errno == errno.EADDRINUSE else ""
            reason = os.strerror(error.errno or 0)
            raise SettingsError(f"cannot listen on {host}:{port}: {reason}{hint}") from error
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _end_with(descriptor: int, *events: asyncio.Event) -> None:
    if not os.read(descriptor, 1024):
        asyncio.get_running_loop().remove_reader(descriptor)
        for event in events:
            event.set()
