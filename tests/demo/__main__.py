"""Record deploy/failover.svg: a node is killed while it writes an answer, and the answer continues.

    python -m tests.demo [--port 8000] [--output FILE]

A gateway and two nodes run with the real model, and the OpenAI SDK streams an answer. What the programs print is shown
at the time it was printed, neither faster nor slower. This script writes the prompts, the comments and the last line,
and runs each command without a shell; the kill is a SIGKILL to the process shown.

The recording is paused while the nodes load, while the undisturbed run takes place, while the killed node restarts and
while `adapter nodes` starts. It is never paused during the answer. Only a few lines of `adapter up` are shown, the
table ends with the last column that fits, and prose wraps between words. The client's import and its constants URL and
MODEL are not shown.

No file is written if the answer did not move to the other node, or if it differs from an undisturbed run.
"""

from __future__ import annotations

import argparse
import codecs
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

import httpx
import psutil

from tests.demo.picture import COLUMNS, Event, Pane, Style, draw
from tests.processes import Running, adapter_up, until

OUTPUT = Path(__file__).parents[2] / "deploy" / "failover.svg"
TITLE = "A node is killed in the middle of an answer (real time; loading cut)"
KILL_AFTER = 150
"""Characters of the answer before the kill; it has about 400."""
TYPING = 1.5
"""Seconds between commands, for the viewer."""
SHOWN = re.compile(r"\d+ nodes up |ready on |node \d+ |node \d+: serving ")
PRELUDE = """\
from openai import OpenAI
URL, MODEL = {url!r}, "SmolLM2-135M-Instruct"
print("imported", flush=True)
input()
"""
PROGRAM = """\
create = OpenAI(base_url=URL + "/v1", api_key="any").chat.completions.create
ask = {"role": "user", "content": "Write a short paragraph about the moon."}
for part in create(model=MODEL, messages=[ask], temperature=0, stream=True):
    print(part.choices[0].delta.content or "", end="", flush=True)
"""


class Tape:
    """Recorded events, timed by a clock that can be paused."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._zero = time.monotonic()
        self._paused_at: float | None = None
        self._lock = Lock()

    def add(self, pane: Pane, text: str, style: Style = "plain") -> None:
        with self._lock:
            now = time.monotonic() if self._paused_at is None else self._paused_at
            self.events.append(Event(round(now - self._zero, 3), pane, text, style))

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._paused_at = time.monotonic()
        yield
        with self._lock:
            self._zero += time.monotonic() - self._paused_at
            self._paused_at = None


def record(port: int) -> list[Event]:
    """Record one real run. Fails unless the answer survived the kill unchanged."""
    tape = Tape()
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory())
        time.sleep(0.4)
        tape.add("operator", f"$ adapter up --port {port}\n", "command")
        time.sleep(TYPING)
        with tape.paused():
            running = stack.enter_context(adapter_up("--port", str(port), directory=directory))
            client = stack.enter_context(_client(running.url))
        stack.enter_context(_printing(tape, running))
        time.sleep(TYPING)
        tape.add("client", _shown(PROGRAM), "command")
        text, victim = _watch(tape, client, running.url)
        time.sleep(TYPING)
        with tape.paused():
            until(lambda: _healthy(running.url, victim["peer"]), 60)
            until(lambda: any(_moved(line, victim["peer"]) for line in running.lines), 5)
            undisturbed = stack.enter_context(_client(running.url)).communicate(b"\n")[0].decode()
        assert text == undisturbed, f"{text!r} is not {undisturbed!r}"
        _table(tape, running.url, victim["peer"])
        time.sleep(TYPING)
        tape.add("client", "\n\nidentical to an undisturbed run: ")
        tape.add("client", "yes", "good")
        tape.add("client", f"    longest pause: {pause(tape.events):.1f} s\n", "dim")
    return tape.events


def pause(events: list[Event]) -> float:
    """Return the longest time between two pieces of the answer, in seconds."""
    times = [event.time for event in events if event.style in ("before", "after")]
    return max(later - sooner for sooner, later in pairwise(times))


@contextmanager
def _printing(tape: Tape, running: Running) -> Iterator[None]:
    """Record what `adapter up` prints about its nodes; its output is polled every 10 ms."""
    ended = Flag()

    def follow() -> None:
        seen = 0
        while not ended.wait(0.01):
            for line in running.lines[seen:]:
                seen += 1
                if SHOWN.match(line):
                    style: Style = "bad" if re.match(r"node \d+ ", line) else "plain"
                    tape.add("operator", line.partition("  (")[0].rstrip() + "\n", style)

    thread = Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _shown(program: str) -> str:
    """Format code as an interactive Python session."""
    return "".join(f"{'...' if line.startswith(' ') else '>>>'} {line}\n" for line in program.splitlines())


def _client(url: str) -> subprocess.Popen[bytes]:
    """Start a Python process that has imported the SDK and runs the program once it reads a line."""
    command = [sys.executable, "-c", PRELUDE.format(url=url) + PROGRAM]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert client.stdout is not None
    assert client.stdout.readline() == b"imported\n"
    return client


def _watch(tape: Tape, client: subprocess.Popen[bytes], url: str) -> tuple[str, dict[str, Any]]:
    """Return the answer and the node that was killed while writing it."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"\n")
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, busy, killed = "", list[dict[str, Any]](), False
    while data := client.stdout.read(4096):
        piece = decoder.decode(data)
        text += piece
        tape.add("client", piece, "after" if killed else "before")
        # There is no other client, so the node with a request is the one writing this answer.
        busy = busy or [node for node in _nodes(url) if node["requests"]]
        if not killed and len(text) >= KILL_AFTER:
            (victim,) = busy
            psutil.Process(victim["process"]).send_signal(signal.SIGKILL)
            tape.add("operator", f"$ kill -9 {victim['process']}   # the node that is writing this answer\n", "kill")
            killed = True
    assert client.wait() == 0
    assert killed
    return text, busy[0]


def _table(tape: Tape, url: str, peer: str) -> None:
    """Record the output of `adapter nodes`, with the killed node highlighted."""
    tape.add("operator", f"$ adapter nodes --url {url}   # the killed node is back\n", "command")
    with tape.paused():
        command = [sys.executable, "-m", "adapter.cli", "nodes", "--url", url]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    edge = max(match.start() for match in re.finditer(r"\S+|$", lines[0]) if match.start() <= COLUMNS)
    for line in lines:
        style: Style = "dim" if line is lines[0] else "good" if peer in line else "plain"
        tape.add("operator", line[:edge].rstrip() + "\n", style)


def _nodes(url: str) -> list[dict[str, Any]]:
    return list(httpx.get(url + "/nodes").json()["nodes"])


def _healthy(url: str, peer: str) -> bool:
    return any(node["peer"] == peer and node["state"] == "healthy" for node in _nodes(url))


def _moved(line: str, peer: str) -> bool:
    """Whether this access log line is for an answer that started on `peer` and moved to another node."""
    _, brace, rest = line.partition("{")
    nodes = json.loads(brace + rest).get("nodes", []) if brace and "access" in line else []
    return len(nodes) > 1 and nodes[0] == peer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="port of the gateway (default: a free one)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="SVG file to write")
    options = parser.parse_args()
    events = record(options.port)
    options.output.write_text(draw(events, TITLE))
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, longest pause {pause(events):.2f} s")


if __name__ == "__main__":
    main()
