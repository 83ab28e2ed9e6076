"""Programs under test, each pinned to a core, and the CPU and memory they use."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parents[2]
CORES = sorted(os.sched_getaffinity(0))
FRONT, BACK = CORES[0], CORES[-1]
"""Core of the measured program, and core of the load and the nodes."""

_ADDRESS = re.compile(r"\bon (https?://[\d.]+:\d+)")


class Program:
    """A running program at `url`. Its figures include all its processes."""

    def __init__(self, process: psutil.Process, url: str) -> None:
        self.url = url
        self._process = process

    @property
    def processes(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    @property
    def cpu(self) -> dict[int, float]:
        """Seconds of CPU so far, user and system, by process id."""
        return {process.pid: float(sum(process.cpu_times()[:2])) for process in self.processes}

    @property
    def memory(self) -> float:
        """Resident memory in MiB."""
        return float(sum(process.memory_info().rss for process in self.processes)) / 2**20


@contextmanager
def running(
    command: Sequence[str],
    cores: Sequence[int],
    *,
    nice: int = 0,
    url: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run a program on `cores`; it is ready when it prints its address, or accepts connections at `url`.

    Its output goes to a file, as in production.
    """

    def pin() -> None:
        os.sched_setaffinity(0, cores)
        os.nice(nice)

    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environment or {})}
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environ, preexec_fn=pin
        )
        try:
            yield Program(psutil.Process(child.pid), _wait(child, output.fileno(), url))
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait(child: subprocess.Popen[bytes], output: int, url: str) -> str:
    for _ in range(600):
        said = os.pread(output, 10_000, 0).decode()
        if url and _listens(url):
            return url
        if not url and (match := _ADDRESS.search(said)) is not None:
            return match[1]
        if child.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"{child.args!r} did not start:\n{said}")


def _listens(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def node(rate: float, *more: str, nice: int = 0, module: str = "subnet.cli") -> AbstractContextManager[Program]:
    """Run an echo node on the core of the load; with `rate` 0 it is not paced."""
    flags = ("--engine", "echo", "--port", "0", "--echo-rate", str(rate), "--concurrency", "100000")
    return running(python(module, "node", *flags, *more), [BACK], nice=nice)


def can_have_workers() -> bool:
    """Whether `adapter serve` has the flag --workers."""
    said = subprocess.run(python("adapter.cli", "serve", "--help"), capture_output=True, text=True, check=True)
    return "--workers" in said.stdout


def gateway(
    *nodes: Program, workers: int = 1, kind: str = "", certificate: Path | None = None
) -> AbstractContextManager[Program]:
    """Run a gateway with its default settings, with nodes of a `kind` or such as it detects; with two workers it also
    has the second core. It trusts `certificate`, if there is one.
    """
    environment = {"SSL_CERT_FILE": str(certificate)} if certificate else {}
    prefix = f"{kind}=" if kind else ""
    addresses = [part for one in nodes for part in ("--node", prefix + one.url)]
    more = ["--workers", str(workers)] if workers > 1 else []
    command = python("adapter.cli", "serve", "--port", "0", *addresses, *more)
    return running(command, [FRONT] if workers == 1 else CORES, environment=environment)
