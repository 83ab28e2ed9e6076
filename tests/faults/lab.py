"""Real processes to break: nodes, a gateway in front of them, and all of it together as a pool."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil

from subnet.node.run import SERVING
from tests.faults.asking import Answer, Question, ask, get
from tests.faults.proxy import Fault, Trap, Wires
from tests.processes import until

ROOT = Path(__file__).parents[2]
ECHO = ("subnet.cli", "node", "--engine", "echo", "--concurrency", "256")
PACED = (*ECHO, "--echo-rate", "200")
QUICK = ("--first-token-timeout", "0.8", "--prefill-rate", "10000", "--stall-timeout", "0.5")
"""Flags of a gateway that notices soon."""
NOTHING = {"requests": 0, "slots": 0, "files": 0, "threads": 0}


class Command:
    """A Python program of ours, which can be started again; `lines` are what it has printed so far."""

    def __init__(self, *arguments: str, ready: re.Pattern[str]) -> None:
        self.arguments = list(arguments)
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._ready = ready

    def start(self) -> None:
        """Without waiting until it is ready."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )

    def wait(self) -> str:
        """For the line that says that it is ready; the address in it."""
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
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self, number: int = signal.SIGKILL) -> int:
        """Its exit code."""
        assert self.process is not None
        self.send(number)
        code = self.process.wait(30)
        assert self.process.stdin is not None
        self.process.stdin.close()
        return code


class Node(Command):
    """A node process. Started again, it listens on the same port."""

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
        """Killed, and started under the same address; does not wait until it serves."""
        self.end()
        self.start()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def running(self) -> int:
        """Of its slots, how many are taken."""
        return int(get(self.address + "/healthz")["running"])


class Gateway(Command):
    """A gateway process in front of `addresses`."""

    def __init__(self, addresses: Sequence[str], flags: Sequence[str] = QUICK) -> None:
        named = [part for address in addresses for part in ("--node", address)]
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
        """Its open files and its threads."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        return process.num_fds(), process.num_threads()


class Pool:
    """Nodes, each behind a proxy, and a gateway in front. `trap` holds the faults that are to come."""

    def __init__(self, gateway: Gateway, nodes: Sequence[Node], trap: Trap, wires: Wires) -> None:
        self.gateway = gateway
        self.nodes = nodes
        self.trap = trap
        self._wires = wires
        self._held = (0, 0)

    @property
    def model(self) -> str:
        return str(self.gateway.table[0]["model"])

    def ask(self, question: Question) -> Answer:
        return ask(self.gateway.url, question)

    def ask_through(self, question: Question, *faults: tuple[int, Fault]) -> Answer:
        """Its answer while `faults` happen, each after so many tokens since the one before. All must happen."""
        self.trap.set(*faults)
        answer = self.ask(question)
        with suppress(AssertionError):
            until(lambda: self.trap.sprung == len(faults), 1.0)
        assert self.trap.sprung == len(faults), f"{self.trap.sprung} of {len(faults)} faults happened"
        return answer

    def heal(self) -> None:
        """Everything is as it was at the start. Fails if something is left behind."""
        self.mend()
        self.settle()

    def mend(self) -> None:
        """Every node serves again, and the gateway has noticed."""
        self.trap.set()
        dead = [node for node in self.nodes if not node.alive]
        for node in dead:
            node.again()
        for node in self.nodes:
            node.send(signal.SIGCONT)
        for node in dead:
            node.wait()
        self._wires.heal()
        self._await_health()
        # As many good answers as a pool gives that does not live in a laboratory, so that breakers stay closed.
        for _ in self.nodes:
            self.ask(Question(model=self.model, max_tokens=1))

    def settle(self) -> None:
        """Wait until nothing is left of what was asked. Fails with what is left."""
        with suppress(AssertionError):
            until(lambda: self.left == NOTHING, 10.0)
        assert self.left == NOTHING, f"left behind: {self.left}"

    def warm_up(self) -> None:
        """See to it that all that is made on first use is there; what is held from now on is what it needs."""
        self._await_health()
        for _ in self.nodes:
            assert self.ask(Question(model=self.model, max_tokens=2)).complete
        self._held = self.gateway.held

    def _await_health(self) -> None:
        with suppress(AssertionError):
            until(self._well)
        assert self._well(), f"{self.gateway.table}{''.join(self.gateway.lines[-20:])}"

    def _well(self) -> bool:
        """Whether every node is. One that is back in doubt gets a request, without which it would stay so."""
        states = {row["state"] for row in self.gateway.table}
        if "breaker-half-open" in states:
            self.ask(Question(model=self.model, max_tokens=1))
        return states == {"healthy"}

    @property
    def left(self) -> dict[str, int]:
        """What is busy or held, and should not be when nothing is asked; files and threads only above the usual."""
        files, threads = self.gateway.held
        return {
            "requests": sum(row["requests"] for row in self.gateway.table),
            "slots": sum(node.running for node in self.nodes),
            "files": max(0, files - self._held[0]),
            "threads": max(0, threads - self._held[1]),
        }


@contextmanager
def nodes(*commands: Sequence[str]) -> Iterator[list[Node]]:
    """Node processes, one for each command line, started together."""
    made = [Node(*command) for command in commands]
    with ExitStack() as stack:
        for node in made:
            node.start()
            stack.callback(node.end)
        for node in made:
            node.wait()
        yield made


@contextmanager
def gateway(addresses: Sequence[str], flags: Sequence[str] = QUICK) -> Iterator[Gateway]:
    """Ended at the end as by Ctrl-C, without complaint."""
    made = Gateway(addresses, flags)
    made.start()
    try:
        made.wait()
        yield made
        assert made.end(signal.SIGINT) == 0
        assert "Traceback" not in "".join(made.lines), "".join(made.lines)
    finally:
        made.end()


@contextmanager
def pool(*commands: Sequence[str], flags: Sequence[str] = QUICK) -> Iterator[Pool]:
    """Nodes, one for each command line, proxies and a gateway; warmed up."""
    trap, wires = Trap(), Wires()
    with ExitStack() as stack:
        made = stack.enter_context(nodes(*commands))
        stack.callback(wires.close)
        proxies = [wires.proxy(trap, node) for node in made]
        front = stack.enter_context(gateway([proxy.address for proxy in proxies], flags))
        whole = Pool(front, made, trap, wires)
        whole.warm_up()
        yield whole
