"""Signals to a gateway and to a node while an answer is streamed: none of them cuts it off."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.protocols.in_process import InProcessProtocol
from tests.fakes import gateway
from tests.processes import Running, adapter_up, until

ECHO = ("--engine", "echo", "--concurrency", "64", "--local-nodes", "1")
# At 50 tokens per second, enough for a busy machine to notice all signals before the end.
TOKENS = 250
IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BODY = {"model": "echo", "messages": [{"role": "user", "content": "go"}], "max_tokens": TOKENS, "seed": 3}


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


def text_with(url: str, acts: Mapping[int, Callable[[], None]]) -> str:
    """Return the text of an answer. Each of `acts` is called once, after the number of pieces that is its key."""
    texts = []
    for number, text in enumerate(streamed(url)):
        texts.append(text)
        if number in acts:
            acts[number]()
    return "".join(texts)


@pytest.fixture
async def whole() -> str:
    """Return the undisturbed answer, which is the same from every gateway."""
    engine = EchoEngine("echo", EchoOptions(rate=0))
    async with engine, gateway(InProcessProtocol(engine, "node")) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/v1/chat/completions", json=BODY)
    return str(answer.json()["choices"][0]["message"]["content"])


def send_ignored(running: Running, output: Callable[[], str]) -> None:
    """Send the signals without a meaning to the gateway and all its processes; each must be reported."""
    for pid in (running.process.pid, *(child.pid for child in running.nodes())):
        for number in IGNORED:
            os.kill(pid, number)
    until(lambda: all(f"ignored {number.name}" in output() for number in IGNORED))
    assert running.process.poll() is None


def is_draining(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz").status_code == 503
    except httpx.TransportError:
        # An idle worker has just exited.
        return False


def test_without_a_terminal(whole: str, tmp_path: Path) -> None:
    """SIGHUP, SIGUSR1 and SIGUSR2 change nothing. SIGQUIT, as by Ctrl-backslash, lets the running answer finish."""
    with adapter_up(*ECHO, directory=str(tmp_path)) as running:

        def quit_gateway() -> None:
            assert whole.startswith("".join(streamed(running.url, 10)))
            running.process.send_signal(signal.SIGQUIT)
            until(lambda: is_draining(running.url))

        acts = {5: lambda: send_ignored(running, lambda: "".join(running.lines)), 10: quit_gateway}
        assert text_with(running.url, acts) == whole
        assert running.process.wait(20) == 0


class Terminal:
    """Pseudo-terminal of a program; `output` is what the program has written so far."""

    def __init__(self) -> None:
        self._end, self.file = pty.openpty()
        self._output = b""

    def output(self) -> str:
        while select.select([self._end], [], [], 0.1)[0]:
            self._output += os.read(self._end, 4096)
        return self._output.decode()

    def close(self) -> None:
        os.close(self._end)


@contextmanager
def in_terminal(directory: Path, *flags: str) -> Iterator[tuple[Running, Terminal]]:
    """Run `adapter up` in a pseudo-terminal, which the caller closes."""
    terminal = Terminal()
    command = [sys.executable, "-m", "adapter.cli", "up", "--port", "0", *ECHO, *flags]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    # The program makes the terminal its own, as a login shell does; `preexec_fn` would run in a process with threads.
    start = (
        "import fcntl, os, sys, termios;"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY); os.execv(sys.argv[1], sys.argv[1:])"
    )
    slave = terminal.file
    with subprocess.Popen(
        [sys.executable, "-c", start, *command], stdin=slave, stdout=slave, stderr=slave, cwd=directory, env=environ
    ) as process:
        os.close(slave)
        running = Running(process)  # type: ignore[arg-type]
        try:
            until(lambda: "curl" in terminal.output(), 60)
            running.url = terminal.output().partition("ready on ")[2].split()[0]
            yield running, terminal
        finally:
            process.terminate()
            process.wait(20)


def test_in_a_terminal(whole: str, tmp_path: Path) -> None:
    """With two workers: SIGHUP, SIGUSR1 and SIGUSR2 change nothing. When the terminal is closed, the running answer is
    completed, and then all processes exit.
    """
    with in_terminal(tmp_path, "--workers", "2") as (running, terminal):
        children = running.nodes()

        def close_terminal() -> None:
            assert whole.startswith("".join(streamed(running.url, 10)))
            terminal.close()
            until(lambda: is_draining(running.url))

        acts = {5: lambda: send_ignored(running, terminal.output), 10: close_terminal}
        assert text_with(running.url, acts) == whole
        assert running.process.wait(20) == 0
        assert len(children) == 3
        until(lambda: not any(child.is_running() for child in children))


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
