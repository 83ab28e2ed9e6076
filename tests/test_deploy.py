"""Examples of a deployment: the image's user and health check, and the time that a shutdown may take."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from adapter.config import Settings
from subnet.engines.echo import EchoEngine
from subnet.node.run import listening
from subnet.node.server import Node
from tests.fakes import gateway
from tests.processes import free_port

_FILE = (Path(__file__).parent.parent / "deploy" / "Dockerfile").read_text()


@asynccontextmanager
async def node() -> AsyncIterator[str]:
    async with EchoEngine("echo") as engine, listening(Node(engine), "127.0.0.1", 0) as address:
        yield address


async def check(url: str) -> int:
    """Run the health check of the image, and return its exit code."""
    match = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", _FILE, re.MULTILINE)
    assert match is not None
    program, *arguments = json.loads(match[1])
    assert program == "python"
    environ = {**os.environ, "HEALTH_URL": url}
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environ, stderr=subprocess.DEVNULL)
    return await process.wait()


@pytest.mark.parametrize("serving", [gateway, node], ids=["gateway", "node"])
async def test_the_health_check_of_a_live_process(serving: Callable[[], AbstractAsyncContextManager[str]]) -> None:
    """It succeeds for a gateway without a model, and for a node."""
    async with serving() as url:
        assert await check(url + "/healthz") == 0
        assert await check(url + "/nothing-here") == 1


async def test_the_health_check_of_a_dead_process() -> None:
    """It fails with the exit code that Docker takes for unhealthy if nothing listens."""
    assert await check(f"http://127.0.0.1:{free_port()}/healthz") == 1


def test_the_default_of_the_health_check() -> None:
    """Without a setting, the image's own command is checked, which is a gateway."""
    assert "HEALTH_URL=http://127.0.0.1:8000/healthz" in _FILE
    assert 'CMD ["adapter", "up", "--host", "0.0.0.0"]' in _FILE


def test_the_user_is_a_number() -> None:
    """Kubernetes refuses names with runAsNonRoot, as a name may be that of root."""
    users = re.findall(r"^USER (.*)$", _FILE, re.MULTILINE)
    assert [re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) is not None for user in users] == [True]


def test_the_unit_waits_longer_than_a_shutdown_takes() -> None:
    """The unit of the gateway allows for the delay of its settings file and the default drain timeout."""
    folder = Path(__file__).parent.parent / "deploy"
    delay = tomllib.loads((folder / "adapter.toml").read_text())["shutdown_delay"]
    match = re.search(r"^TimeoutStopSec=(\d+)$", (folder / "subnet-adapter.service").read_text(), re.MULTILINE)
    assert match is not None
    assert int(match[1]) >= delay + Settings().drain_timeout + 5
