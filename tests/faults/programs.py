"""Node and gateway processes that can be killed and restarted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil

from subnet.http.node_spec import Kind
from subnet.node.run import SERVING
from tests.faults.asking import get

ROOT = Path(__file__).parents[2]
ECHO = ("subnet.cli", "node", "--engine", "echo", "--concurrency", "256")
PACED = (*ECHO, "--echo-rate", "200")
QUICK = ("--first-token-timeout", "0.8", "--prefill-rate", "10000", "--inter-token-timeout", "0.5")
"""Flags of a gateway with short timeouts."""


class Command:
    """A Python program that can be restarted; `lines` is its output so far, and `prefix` a command that runs it."""

    prefix: Sequence[str] = ()

    def __init__(self, *arguments: str, ready: re.Pattern[str]) -> None:
        self.arguments = list(arguments)
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._ready = ready

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )

    def wait(self) -> str:
        """Wait for the line that says that it is ready, and return the address in it."""
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if (match := self._ready.search(line.rstrip())) is not None:
                Thread(target=self._listen, args=(self.process.stdout,), daemon=True).start()
                return match["address"]
        raise AssertionError("".join(self.lines))

    def _listen(self, output: IO[str]) -> None:
        with output:
            self.lines.extend(output)

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end and return the exit code."""
        assert self.process is not None
        self.send(number)
        code = self.process.wait(30)
        assert self.process.stdin is not None
        self.process.stdin.close()
        return code


class Node(Command):
    """A node process. When restarted, it listens on the same port."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(*arguments, "--with-parent", "true", "--log-level", "warning", "--port", "0", ready=SERVING)
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> str:
        address = super().wait()
        self.port = int(address.rpartition(":")[2])
        self.arguments[-1] = str(self.port)
        return address

    def again(self) -> None:
        """Kill the process and restart it at the same address, without waiting until it is ready."""
        self.end()
        self.start()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def running(self) -> int:
        """Number of slots in use."""
        return int(get(self.address + "/healthz")["running"])


class Gateway(Command):
    """Gateway process in front of servers of type `kind` at `addresses`. Subnet nodes are not detected, since their
    proxies pass WebSocket frames only.
    """

    def __init__(self, addresses: Sequence[str], flags: Sequence[str] = QUICK, kind: Kind | None = "subnet") -> None:
        named = [part for one in addresses for part in ("--node", one if kind is None else f"{kind}={one}")]
        ready = re.compile(r"ready on (?P<address>http://\S+)")
        super().__init__("adapter.cli", "serve", "--port", "0", "--access-log", "false", *named, *flags, ready=ready)
        self.url = ""

    def wait(self) -> str:
        self.url = super().wait()
        return self.url

    @property
    def table(self) -> list[Any]:
        return list(get(self.url + "/nodes")["nodes"])

    @property
    def held(self) -> tuple[int, int]:
        """Number of open files and of threads."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        return process.num_fds(), process.num_threads()


@contextmanager
def nodes(*commands: Sequence[str]) -> Iterator[list[Node]]:
    """Run a node for each command line, started together."""
    made = [Node(*command) for command in commands]
    with ExitStack() as stack:
        for node in made:
            node.start()
            stack.callback(node.end)
        for node in made:
            node.wait()
        yield made


@contextmanager
def gateway(addresses: Sequence[str], flags: Sequence[str] = QUICK, kind: Kind | None = "subnet") -> Iterator[Gateway]:
    """Run a gateway; end it as by Ctrl-C, and fail if it did not exit cleanly."""
    made = Gateway(addresses, flags, kind)
    made.start()
    try:
        made.wait()
        yield made
        assert made.end(signal.SIGINT) == 0
        assert "Traceback" not in "".join(made.lines), "".join(made.lines)
    finally:
        made.end()
