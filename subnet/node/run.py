"""Node process: creates the engine from settings and serves it until a signal arrives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web

from subnet import threads
from subnet.authorizers import TokenAuthorizer
from subnet.engines.base import Engine
from subnet.errors import NodeError, SettingsError
from subnet.http.node_spec import NodeSpec
from subnet.listening import bind, raise_file_limit, url_of
from subnet.node.server import Node
from subnet.node.settings import NodeSettings
from subnet.signals import handle_signals

Report = Callable[[str], None]
_DEFAULT_CONCURRENCY = 4
SERVING = re.compile(r"serving (?P<model>.+) on (?P<address>http://\S+)$")
"""Pattern of the line that tells people and supervisors that a node is ready."""


def make_engine(settings: NodeSettings, report: Report) -> Engine:
    """Create the engine that `settings` select. Blocks while a model is downloaded.

    Raises SettingsError if the settings are incomplete or the model is not available.
    """
    if settings.engine == "echo":
        from subnet.engines.echo import EchoEngine, EchoOptions

        options = EchoOptions(
            rate=settings.echo_rate,
            size=settings.echo_size,
            delay=settings.echo_delay,
            capacity=settings.concurrency or _DEFAULT_CONCURRENCY,
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
            capacity=settings.concurrency or _DEFAULT_CONCURRENCY,
            threads=settings.threads,
            report=report,
        )
    if settings.engine != "llama.cpp":
        return _make_remote_engine(settings.engine, _upstream_spec(settings))
    # Imported here, so that nodes with other engines do not need llama.cpp.
    from subnet.engines.llama_cpp import make_llama_cpp_engine
    from subnet.models.resolve import resolve

    return make_llama_cpp_engine(
        model_path=resolve(settings.model, report),
        model_id=settings.model_id,
        tokenizer_json=None if settings.tokenizer is None else Path(settings.tokenizer),
        context_length=settings.context_length,
        capacity=settings.concurrency or _DEFAULT_CONCURRENCY,
        threads=settings.threads,
    )


def _make_remote_engine(kind: Literal["vllm", "sglang", "llama-server"], spec: NodeSpec) -> Engine:
    if kind == "vllm":
        from subnet.engines.vllm import VllmEngine

        return VllmEngine(spec)
    if kind == "sglang":
        from subnet.engines.sglang import SglangEngine

        return SglangEngine(spec)
    from subnet.engines.llama_server import LlamaServerEngine

    return LlamaServerEngine(spec)


def _upstream_spec(settings: NodeSettings) -> NodeSpec:
    """Return the upstream server of the engine. Raises SettingsError."""
    if settings.upstream is None:
        raise SettingsError(f"the {settings.engine} engine needs --upstream: the address of its server")
    model_id = settings.model_id or settings.model
    try:
        spec = NodeSpec(
            url=settings.upstream,
            models={} if model_id is None else {model_id: settings.model or ""},
            tokenizer=settings.tokenizer,
            context_length=settings.context_length,
            api_key_env=settings.upstream_key_env,
        )
    except ValueError as error:
        raise SettingsError(f"upstream: {error}") from error
    spec.check()
    return spec if settings.concurrency is None else msgspec.structs.replace(spec, concurrency=settings.concurrency)


async def run(settings: NodeSettings, report: Report) -> None:
    """Serve until a signal to stop, then drain; a second signal stops the node at once.

    While a model is downloaded or loaded, which cannot be interrupted, the first signal exits the process. `report` is
    called with a line of text for the user at each step. Raises SettingsError.
    """
    if (warning := settings.exposure()) is not None:
        report(warning)
    raise_file_limit(report)
    drain, abort = asyncio.Event(), asyncio.Event()
    if settings.with_parent:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), _set_on_end_of_file, sys.stdin.fileno(), drain, abort)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(handle_signals(lambda: abort.set() if drain.is_set() else drain.set(), report))
        with _exit_when_set(drain, report):
            engine = await threads.run("load", make_engine, settings, report)
            report(_starting_line(settings))
            try:
                await stack.enter_async_context(engine)
            except NodeError as error:
                raise SettingsError(f"cannot start the {settings.engine} engine: {error.message}") from error
        if engine.card.chat_template is None and settings.engine != "echo":
            report(_without_template(engine))
        authorizer = None
        if settings.secret:
            authorizer = TokenAuthorizer(settings.secret, max_clock_skew=settings.max_clock_skew)
        node = Node(engine, authorizer)
        async with listening(node, settings.host, settings.port) as address:
            report(f"serving {engine.card.id} on {address}")
            await drain.wait()
            report("finishing running answers" if node.running else "stopping")
            await _wait_for_first(node.drain(settings.drain_timeout), abort.wait())


def _starting_line(settings: NodeSettings) -> str:
    if settings.engine == "echo":
        return "starting the echo engine"
    if settings.upstream is not None:
        return f"connecting to {settings.upstream}"
    return f"loading {settings.model or 'the demo model'}"


def _without_template(engine: Engine) -> str:
    return (
        f"{engine.card.id} has no chat template, so it is probably a base model: it continues texts, and answers to"
        " messages may make little sense"
    )


@contextlib.contextmanager
def _exit_when_set(event: asyncio.Event, report: Report) -> Iterator[None]:
    """Exit the process if `event` is set inside the block."""

    async def exit_when_set() -> None:
        await event.wait()
        report("stopping")
        # Python would wait for the thread that downloads or loads the model; no request has been accepted yet.
        os._exit(0)

    exiting = asyncio.create_task(exit_when_set())
    try:
        yield
    finally:
        exiting.cancel()


async def _wait_for_first(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of `awaitables` ends, then cancel the others."""
    tasks = [asyncio.create_task(awaitable) for awaitable in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(node: Node, host: str, port: int) -> AsyncIterator[str]:
    """Serve `node` inside the block and yield its address, http://host:port. Port 0 selects a free port.

    Raises SettingsError if it cannot listen there.
    """
    with bind(host, port) as listener:
        runner = web.AppRunner(node.app(), shutdown_timeout=1.0, access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield url_of(listener, host)
        finally:
            await runner.cleanup()


def _set_on_end_of_file(descriptor: int, *events: asyncio.Event) -> None:
    """Set `events` if a read from `descriptor` returns end of file: the parent process has ended."""
    if not os.read(descriptor, 1024):
        asyncio.get_running_loop().remove_reader(descriptor)
        for event in events:
            event.set()
