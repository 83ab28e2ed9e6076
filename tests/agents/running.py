"""Clients and agents as processes, each with a home folder of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE = HERE / "node"
PYTHON = ROOT / ".venv-agents" / "bin" / "python"
TIMEOUT = 100.0
"""Seconds until a process is killed."""


async def run(command: Sequence[str | Path], folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """Run a command with `folder` as its home and working directory, and return its output. Fails if it fails.

    Proxies and API keys of the environment are left out, so that nothing is asked but the gateway.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "NO_COLOR": "1", **(environ or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (output + errors).decode()
    return output.decode()


async def run_json(command: Sequence[str | Path], folder: Path) -> Any:
    """Run a command, and return the JSON value in the last line of its output."""
    return msgspec.json.decode((await run(command, folder)).splitlines()[-1])
