"""The llama.cpp engine if the library differs from its binding: llama.cpp's own server, with a real model."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from subnet import RemoteManager, SessionManager
from subnet.engines.base import Engine
from subnet.engines.llama_cpp import FallbackEngine, LlamaCppEngine, make_llama_cpp_engine
from subnet.engines.llama_cpp.binding import Binding
from subnet.engines.llama_cpp.header import BINDING
from subnet.errors import EngineFailed, NodeLost, SettingsError
from subnet.generation import Sampling
from subnet.models.resolve import resolve
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.tensors import token_ids
from tests.llama_header import place
from tests.processes import until
from tests.real_engine import CONTEXT, chat, make_engine, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

ID = "smol"
PROMPT = "What is the capital of France?"


def wrong_binding() -> Binding:
    """Return a binding whose context parameters lack one field."""
    context = BINDING.struct("llama_context_params")
    without = place(context.name, [field for field in context.fields if field.name != "n_batch"])
    return replace(BINDING, structs=(BINDING.struct("llama_model_params"), without, BINDING.struct("llama_batch")))


def make_fallback(**settings: Any) -> Engine:
    defaults: dict[str, Any] = {"model_path": resolve(None, print), "capacity": 2, "threads": 1}
    return make_llama_cpp_engine(
        model_id=ID, context_length=CONTEXT, binding=wrong_binding(), **{**defaults, **settings}
    )


def servers() -> list[psutil.Process]:
    """Return the server processes that this process has started."""
    return [child for child in psutil.Process().children() if "server_process" in " ".join(child.cmdline())]


async def first_error(engine: Engine) -> EngineFailed:
    """Check the engine until it fails. The end of its process is noticed shortly after its connections end."""
    async with asyncio.timeout(20):
        while True:
            try:
                await engine.check()
            except EngineFailed as error:
                return error
            except NodeLost:
                pass
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fallback() -> AsyncIterator[Engine]:
    async with make_fallback() as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own() -> AsyncIterator[LlamaCppEngine]:
    async with make_engine(capacity=1, model_id=ID) as engine:
        yield engine


async def test_mismatch_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """If the binding does not match, the fallback engine is used and one line of the log says what differs; otherwise
    there is none.
    """
    with caplog.at_level(logging.DEBUG):
        assert isinstance(make_fallback(), FallbackEngine)
        assert isinstance(make_llama_cpp_engine(model_path=Path("x.gguf")), LlamaCppEngine)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "llama_context_params has an unexpected field at byte" in record.getMessage()


async def test_card_and_tokenizer_are_the_same(fallback: Engine, own: LlamaCppEngine) -> None:
    """The fallback engine has the name, model card and tokenizer of the engine it replaces, and declares the
    capabilities it lacks.
    """
    assert (fallback.name, fallback.card, fallback.artefact) == (own.name, own.card, own.artefact)
    assert fallback.card.id == ID
    assert fallback.capacity == 2
    assert (fallback.capabilities.resume, fallback.capabilities.embeddings) == ("continue", False)
    assert set(fallback.capabilities.grammars) == set(own.capabilities.grammars)


async def test_greedy_tokens_are_the_same(fallback: Engine, own: LlamaCppEngine) -> None:
    """Greedy tokens of the fallback engine equal those of the engine it replaces, also when an answer is continued."""
    tokens, deltas = await run(own, chat(PROMPT), temperature=0, max_tokens=30)
    served, served_deltas = await run(fallback, chat(PROMPT), temperature=0, max_tokens=30)
    assert (served, served_deltas[-1].finish_reason) == (tokens, deltas[-1].finish_reason)
    prompt = token_ids([*chat(PROMPT), *tokens[:4]])
    assert (await run(fallback, prompt, temperature=0, max_tokens=30))[0] == tokens[4:]


async def test_server_needs_the_key(fallback: Engine) -> None:
    """The fallback's server listens on loopback and requires the engine's key, so that other users cannot use it."""
    connections = [c for server in servers() for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert connections
    for connection in connections:
        assert connection.laddr.ip == "127.0.0.1"
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{connection.laddr.port}/completion"
            assert (await http.post(url, json={"prompt": [1], "n_predict": 1})).status == 401


async def test_server_ends_with_the_node() -> None:
    """A node answers through the fallback's server, and stopping the node ends the server's process."""
    before = servers()
    async with make_fallback(capacity=1) as engine:
        (process,) = set(servers()) - set(before)
        async with listening(Node(engine), "127.0.0.1", 0) as address, RemoteManager([address]) as manager:
            await manager.ready()
            async with SessionManager(manager).session() as session:
                prompt, sampling = chat(PROMPT).tolist(), Sampling(temperature=0, max_tokens=4)
                assert [token async for delta in session.generate(prompt, sampling) for token in delta.tokens]
    assert not process.is_running()


async def test_server_ends_with_a_killed_node() -> None:
    """If the node's process is killed, the process of the fallback's server ends, too."""
    code = f"""
import asyncio, pathlib
from subnet.engines.llama_cpp import FallbackEngine
async def main():
    async with FallbackEngine("x", model_path=pathlib.Path({str(resolve(None, print))!r}), context_length=256):
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    node = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert node.stdout is not None
    assert await node.stdout.readline() == b"ready\n"
    (server,) = psutil.Process(node.pid).children()
    node.kill()
    await node.wait()
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


async def test_signals_do_not_end_the_server_before_the_node_has_drained() -> None:
    """Ctrl-C in a terminal does not end the fallback's server; only the node does."""
    before = servers()
    async with make_fallback(capacity=1) as engine:
        (process,) = set(servers()) - set(before)
        process.send_signal(signal.SIGINT)
        process.terminate()
        assert await run(engine, chat(PROMPT), temperature=0, max_tokens=4)


async def test_ended_server_is_an_engine_error() -> None:
    """If the fallback's server crashes, the health check and further jobs fail with an engine error."""
    before = servers()
    async with make_fallback(capacity=1) as engine:
        await engine.check()
        (process,) = set(servers()) - set(before)
        process.kill()
        assert str(await first_error(engine)) == "llama.cpp's server ended with status -9"
        with pytest.raises(EngineFailed, match="ended with status -9"):
            await run(engine, chat(PROMPT), max_tokens=4)


async def test_server_that_does_not_start_is_a_settings_error(tmp_path: Path) -> None:
    """With a truncated model file, the error says that neither the binding nor the fallback's server can be used."""
    truncated = tmp_path / "model.gguf"
    truncated.write_bytes(resolve(None, print).read_bytes()[: 8 << 20])
    before = servers()
    expected = r"requires the package .+ unexpected field .+; its own server cannot be started instead: \w+"
    with pytest.raises(SettingsError, match=expected):
        async with make_fallback(model_path=truncated):
            pass
    assert servers() == before
