"""Fetches the source distributions in sources.lock, without building them: `python -m tests.vectors.set_up`.

pip verifies the hash of an archive, unpacks it and then asks its build system for metadata, which may need packages of
gigabytes. That may fail: with --no-clean, pip leaves the unpacked files in its temporary folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.layers import ROOT

FOLDER = ROOT / "build" / "vectors"
REASON = FOLDER / "reason"
"""Why there are no sources, if they could not be fetched."""

_LOCK = Path(__file__).with_name("sources.lock")
# The folder of each source in its distribution, and what is read of it.
_VLLM = (
    *("examples", "tests/tool_parsers", "tests/reasoning"),
    *("vllm/tool_parsers", "vllm/reasoning", "vllm/parser"),
)
_KEPT = {
    "llama-cpp-python": ("llama.cpp", "vendor/llama.cpp", ("models", "tests/test-chat.cpp")),
    "vllm": ("vllm", ".", _VLLM),
}
_LIMIT = 120  # seconds, for each


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for line in _LOCK.read_text().splitlines():
        name = line.partition("==")[0]
        if name not in _KEPT or (FOLDER / _KEPT[name][0] / "complete").exists():
            continue
        print(f"[vectors] the sources of {line.partition(' ')[0]}", flush=True)
        if reason := _fetch(name, line):
            REASON.write_text(reason)
            print(f"not fetched: {reason}", file=sys.stderr)
            return
    REASON.unlink(missing_ok=True)


def _fetch(name: str, requirement: str) -> str:
    """Fetch a source. Returns why that failed, or ""."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        result = _download(requirement, Path(folder))
        unpacked = sorted(Path(folder).glob(f"pip-download-*/{name}_*"))
        if not unpacked:
            errors = [line for line in result.splitlines() if line.startswith("ERROR")]
            return f"pip could not fetch {name}: {errors[-1] if errors else result[-500:]}"
        target, inner, kept = _KEPT[name]
        shutil.rmtree(FOLDER / target, ignore_errors=True)
        for path in kept:
            source, destination = unpacked[0] / inner / path, FOLDER / target / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            source.rename(destination)
        (FOLDER / target / "complete").touch()
    return ""


def _download(requirement: str, folder: Path) -> str:
    lock = folder / "lock"
    lock.write_text(requirement)
    options = "--no-input --no-cache-dir --no-deps --no-binary :all: --no-build-isolation --no-clean --require-hashes"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options.split()]
    try:
        done = subprocess.run(
            [*command, "--quiet", "--dest", folder / "out", "--requirement", lock],
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"ERROR: not done after {_LIMIT} s"
    return done.stdout


if __name__ == "__main__":
    main()
