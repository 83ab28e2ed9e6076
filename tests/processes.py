"""`adapter up` as a real process, for tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import psutil


class Running:
    """A gateway process with its nodes; `lines` is its output so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read the output up to a line that matches, and return the match. Fails with the output if the process ends
        first.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if (match := re.search(pattern, line)) is not None:
                return match
        raise AssertionError("".join(self.lines))

    def drain(self) -> None:
        """Read the output in the background, so that the process never blocks on it."""
        assert self.process.stdout is not None
        Thread(target=self.lines.extend, args=(self.process.stdout,), daemon=True).start()

    def nodes(self) -> list[psutil.Process]:
        """Return the node processes, oldest first."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda child: child.create_time())


@contextmanager
def adapter_up(*flags: str, directory: str) -> Iterator[Running]:
    """Run `adapter up` on a free loopback port; interrupt it at the end, as by Ctrl-C."""
    command = [sys.executable, "-m", "adapter.cli", "up", "--port", "0", *flags]
    environ = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=environ,
        start_new_session=True,
    ) as process:
        running = Running(process)
        try:
            running.url = running.wait_for(r"ready on (http://\S+)")[1]
            running.wait_for("curl|no model yet")
            running.drain()
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll `condition` until it holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
