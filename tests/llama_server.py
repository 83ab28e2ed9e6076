"""llama.cpp's own server, with its real HTTP API, as a process on loopback: `python -m tests.llama_server --help`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xllamacpp  # type: ignore[import-untyped]

from subnet.models.resolve import resolve
from tests.processes import Running


@contextmanager
def llama_server(*, slots: int = 2, context: int = 512, port: int = 0, model: Path | None = None) -> Iterator[Running]:
    """A running one; each slot has `context` tokens. Killed at the end, if it still lives; it ends with its parent."""
    command = [sys.executable, "-m", "tests.llama_server", "--with-parent", "--port", str(port)]
    command += ["--slots", str(slots), "--context", str(context)]
    command += [] if model is None else ["--model", str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        running = Running(process)
        try:
            running.url = running.wait_for(r"ready on (http://\S+)")[1]
            running.drain()
            yield running
        finally:
            process.kill()


def started(port: int, slots: int, context: int, model: Path) -> xllamacpp.Server:
    """A server, in threads of this process, for as long as the object lives."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context
    # Else it makes the context smaller where memory looks scarce.
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.endpoint_metrics = True
    params.verbosity = -1
    return xllamacpp.Server(params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--slots", type=int, default=2, help="answers written at once")
    parser.add_argument("--context", type=int, default=512, help="tokens of context of each slot")
    parser.add_argument("--model", type=Path, default=None, help="a GGUF file; by default the model of the package")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args()
    server = started(options.port, options.slots, options.context, options.model or resolve(None, print))
    print(f"ready on {server.listening_address}", flush=True)
    if options.with_parent:
        sys.stdin.read()
    else:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    # Its threads hold no state worth a farewell.
    os._exit(0)


if __name__ == "__main__":
    main()
