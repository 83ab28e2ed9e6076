"""Engine for GGUF files if the library differs from its binding: the wheel's own server, as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from subnet import threads
from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.llama_cpp import native
from subnet.engines.llama_cpp.binding import Binding
from subnet.engines.llama_cpp.header import BINDING
from subnet.engines.llama_cpp.llama_cpp_engine import LlamaCppEngine
from subnet.errors import EngineFailed, NodeError, SettingsError
from subnet.generation import Delta, Job
from subnet.http.node_spec import NodeSpec
from subnet.models.card import describe

_SCRIPT = Path(__file__).with_name("server_process.py")
# How long the process may take to end by itself, in seconds.
_STOP_TIMEOUT = 5.0

logger = logging.getLogger(__name__)


def make_llama_cpp_engine(
    *,
    model_path: Path,
    model_id: str | None = None,
    tokenizer_json: Path | None = None,
    context_length: int | None = None,
    capacity: int = 4,
    threads: int | None = None,
    binding: Binding = BINDING,
) -> Engine:
    """Create the engine for a GGUF file: LlamaCppEngine, or FallbackEngine if the library differs from `binding`.

    Blocks while the library is loaded. Raises SettingsError if the wheel is missing.
    """
    make: Callable[..., Engine] = LlamaCppEngine
    try:
        native.load_library(binding)
    except native.BindingMismatch as mismatch:
        logger.warning(
            "%s; serving through its own server instead, without embeddings and prompt logprobs", mismatch.message
        )
        make = functools.partial(FallbackEngine, mismatch.message)
    return make(
        model_path=model_path,
        model_id=model_id,
        tokenizer_json=tokenizer_json,
        context_length=context_length,
        capacity=capacity,
        threads=threads,
    )


class _Answer(msgspec.Struct):
    """Line that the process prints once it has loaded the model."""

    url: str | None = None
    error: str | None = None


class FallbackEngine(Engine):
    """Serves one GGUF file through llama.cpp's own server, by token ids, with the card and tokenizer of LlamaCppEngine.

    The server is a child process on loopback, with an API key, and ends with the engine or this process. If it ends on
    its own, `check` and `run` raise EngineFailed from then on.
    """

    name = LlamaCppEngine.name

    def __init__(
        self,
        reason: str,
        *,
        model_path: Path,
        model_id: str | None = None,
        tokenizer_json: Path | None = None,
        context_length: int | None = None,
        capacity: int = 4,
        threads: int | None = None,
    ) -> None:
        self._reason = reason
        self.capacity = capacity
        self._path = model_path
        self._model_id = model_id
        self._tokenizer_json = tokenizer_json
        self._requested_length = context_length
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._stack = contextlib.AsyncExitStack()
        self._process: Process
        self._server: Engine

    async def __aenter__(self) -> Self:
        """Start the server, which loads the model. Raises SettingsError if that fails."""
        # Imported here, because nodes rarely need it.
        from subnet.engines.llama_server import LlamaServerEngine

        self.card, self.artefact = await threads.run(
            "load", describe, self._path, self._model_id, self._requested_length, self._tokenizer_json
        )
        async with contextlib.AsyncExitStack() as stack:
            key = secrets.token_hex(16)
            try:
                url = await self._start(stack, key)
                self._server = await stack.enter_async_context(LlamaServerEngine(self._spec(url, key)))
            except (NodeError, OSError, SettingsError, msgspec.DecodeError) as error:
                raise SettingsError(f"{self._reason}; its own server cannot be started instead: {error}") from error
            self.capabilities = self._server.capabilities
            self.capacity = self._server.capacity
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def check(self) -> None:
        self._check_process()
        await self._server.check()

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        self._check_process()
        await self._server.run(job, emit)

    def _check_process(self) -> None:
        if self._process.returncode is not None:
            raise EngineFailed(f"llama.cpp's server ended with status {self._process.returncode}")

    async def _start(self, stack: contextlib.AsyncExitStack, key: str) -> str:
        """Start the process and return its address. The stack ends it."""
        options: dict[str, Any] = {
            "model": str(self._path),
            "slots": self.capacity,
            "context_length": self.card.context_length,
            "threads": self._threads,
            "api_key": key,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(_SCRIPT)), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        stack.push_async_callback(_stop, process)
        assert process.stdin is not None
        assert process.stdout is not None
        # By standard input: command lines are visible to all users of a machine.
        process.stdin.write(msgspec.json.encode(options) + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise SettingsError(f"the process ended with status {await process.wait()}")
        answer = msgspec.json.decode(line, type=_Answer)
        if answer.url is None:
            raise SettingsError(answer.error or "it has no address")
        self._process = process
        return answer.url

    def _spec(self, url: str, key: str) -> NodeSpec:
        return NodeSpec(
            url=url,
            name="llama.cpp's server",
            models={self.card.id: ""},
            tokenizer=None if self._tokenizer_json is None else str(self._tokenizer_json),
            context_length=self.card.context_length,
            concurrency=self.capacity,
            api_key=key,
        )


async def _stop(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    except BaseException:
        process.kill()
        raise
