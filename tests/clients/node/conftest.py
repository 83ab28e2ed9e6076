"""Node.js, and the packages of package-lock.json beside this file."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
LOCK = HERE / "package-lock.json"
INSTALLED = HERE / "node_modules" / ".package-lock.json"
OLDEST = 20

Script = Callable[..., dict[str, object]]


@pytest.fixture(scope="session")
def script() -> Script:
    """Return a function that runs a script of this folder and returns its JSON output. Skips without a recent
    Node.js.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are not installed")
    version = _output([node, "--version"])
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST:
        pytest.skip(f"Node {version.strip()} is older than {OLDEST}")
    with (HERE / ".installing").open("w") as alone:
        # Tests may run in several processes.
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not INSTALLED.is_file() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
            _output([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"])

    def run(name: str, *arguments: str) -> dict[str, object]:
        found: dict[str, object] = msgspec.json.decode(_output([node, name, *arguments]))
        return found

    return run


def _output(command: list[str]) -> str:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout
