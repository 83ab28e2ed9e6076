"""Signals to a gateway and to a node while an answer is streamed: none of them cuts it off."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.processes import Running, adapter_up, until

ECHO = ("--engine", "echo", "--concurrency", "64", "--local-nodes", "1")
# At 50 tokens per second, enough for a busy machine to notice the signal before the end.
TOKENS = 250
IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def streamed(url: str, max_tokens: int = TOKENS) -> Iterator[str]:
    """Yield the texts of the chunks of one answer; it must end by itself."""
    client = OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    reason = None
    stream = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "go"}], max_tokens=max_tokens, seed=3, stream=True
    )
    for chunk in stream:
        yield chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
    assert reason == "length"


def text_with(url: str, act: Callable[[], None]) -> str:
    """Return the text of an answer, in the middle of which `act` is called."""
    texts = []
    for number, text in enumerate(streamed(url)):
        texts.append(text)
        if number == 5:
            act()
    return "".join(texts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the undisturbed answer, which is the same from every gateway."""
    with adapter_up(*ECHO, directory=str(tmp_path_factory.mktemp("whole"))) as running:
        return "".join(streamed(running.url))


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_without_a_meaning(workers: int, whole: str, tmp_path: Path) -> None:
    """SIGHUP, SIGUSR1 and SIGUSR2 to the gateway and to a node are reported and change nothing."""
    with adapter_up(*ECHO, "--workers", str(workers), directory=str(tmp_path)) as running:

        def send_all() -> None:
            for pid in (running.process.pid, *(node.pid for node in running.nodes())):
                for number in IGNORED:
                    os.kill(pid, number)
            until(lambda: all(any(f"ignored {number.name}" in line for line in running.lines) for number in IGNORED))

        assert text_with(running.url, send_all) == whole
        assert whole.startswith("".join(streamed(running.url, 10)))
        assert running.process.poll() is None


def test_sigquit_drains(whole: str, tmp_path: Path) -> None:
    """SIGQUIT, as by Ctrl-backslash, ends the gateway like SIGTERM: after the running answer."""
    with adapter_up(*ECHO, directory=str(tmp_path)) as running:

        def quit_gateway() -> None:
            running.process.send_signal(signal.SIGQUIT)
            until(lambda: httpx.get(running.url + "/readyz").status_code == 503)

        assert text_with(running.url, quit_gateway) == whole
        assert running.process.wait(20) == 0


@contextmanager
def in_terminal(directory: Path) -> Iterator[tuple[Running, int]]:
    """Run `adapter up` in a pseudo-terminal; yield it with the terminal's other end."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "adapter.cli", "up", "--port", "0", *ECHO]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    # The program makes the terminal its own, as a login shell does; `preexec_fn` would run in a process with threads.
    start = (
        "import fcntl, os, sys, termios;"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, *command], stdin=slave, stdout=slave, stderr=slave, cwd=directory, env=environ
    ) as process:
        os.close(slave)
        running = Running(process)  # type: ignore[arg-type]
        output = b""
        try:
            while b"curl" not in output:
                output += os.read(master, 4096)
            running.url = output.decode().partition("ready on ")[2].split()[0]
            yield running, master
        finally:
            process.terminate()
            process.wait(20)


def test_closing_the_terminal_drains(whole: str, tmp_path: Path) -> None:
    """When the terminal is closed, the running answer is completed, and then gateway and nodes exit."""
    with in_terminal(tmp_path) as (running, master):
        nodes = running.nodes()

        def close_terminal() -> None:
            os.close(master)
            until(lambda: httpx.get(running.url + "/readyz").status_code == 503)

        assert text_with(running.url, close_terminal) == whole
        assert running.process.wait(20) == 0
        assert nodes
        until(lambda: not any(node.is_running() for node in nodes))


def test_nohup(tmp_path: Path) -> None:
    """A SIGHUP that is ignored from the start, as by nohup, stays ignored: nothing is reported."""
    command = ["nohup", sys.executable, "-m", "subnet.cli", "node", "--engine", "echo", "--port", "0"]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environ,
        start_new_session=True,
    ) as process:
        running = Running(process)
        running.wait_for("serving echo")
        for number in (signal.SIGHUP, signal.SIGUSR1):
            process.send_signal(number)
        running.wait_for("ignored SIGUSR1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not any("SIGHUP" in line for line in running.lines)
