"""Signals and parent exit while a node process is still loading its model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from subnet.models.resolve import resolve
from subnet.node.run import SERVING
from tests.processes import until


@contextmanager
def loading_node(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node whose model file is a pipe that has been opened but yields no data."""
    model = folder / "slow.gguf"
    os.mkfifo(model)
    writers: list[int] = []

    def opened() -> bool:
        try:
            writers.append(os.open(model, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # no reader yet
            return False
        return True

    command = [sys.executable, "-m", "subnet.cli", "node", "--port", "0", "--with-parent", "true"]
    with subprocess.Popen([*command, "--model", str(model)], stdin=subprocess.PIPE) as process:
        try:
            until(opened)
            yield process
        finally:
            process.kill()
            for writer in writers:
                os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_loading_node(tmp_path: Path, number: signal.Signals) -> None:
    """A signal stops a node at once while its model is loading."""
    with loading_node(tmp_path) as process:
        process.send_signal(number)
        assert process.wait(20) == 0


def test_a_loading_node_stops_with_its_parent(tmp_path: Path) -> None:
    """A node exits when standard input closes while its model is loading."""
    with loading_node(tmp_path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize("has_template", [True, False])
def test_a_model_without_a_chat_template(tmp_path: Path, has_template: bool) -> None:
    """A node that loads a model without a chat template says so before it serves."""
    model = resolve(None, print)
    if not has_template:
        data = model.read_bytes()
        model = tmp_path / "base.gguf"
        model.write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_tomplate", 1))
    command = [sys.executable, "-m", "subnet.cli", "node", "--port", "0", "--context-length", "64"]
    with subprocess.Popen([*command, "--model", str(model)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            while not SERVING.search(line := process.stdout.readline()):
                assert line
                lines.append(line)
        finally:
            process.kill()
    assert ("has no chat template, so it is probably a base model" in "".join(lines)) != has_template
