"""llama-server, with its real HTTP API, as a process on loopback: `python -m tests.llama_server --help`."""

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
def llama_server(
    *, slots: int = 2, context: int = 512, port: int = 0, model: Path | None = None, embeddings: bool = False
) -> Iterator[Running]:
    """Run a server whose slots have `context` tokens each. With `embeddings`, that is all it does. It is killed at the
    end of the block, or with its parent.
    """
    command = [sys.executable, "-m", "tests.llama_server", "--with-parent", "--port", str(port)]
    command += ["--slots", str(slots), "--context", str(context)]
    command += [] if model is None else ["--model", str(model)]
    command += ["--embeddings"] if embeddings else []
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


def start_server(port: int, slots: int, context: int, model: Path, *, embeddings: bool = False) -> xllamacpp.Server:
    """Start a server in threads of this process, which runs as long as the returned object exists."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context
    # Otherwise the server reduces the context if memory seems scarce.
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.endpoint_metrics = True
    if embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.verbosity = -1
    return xllamacpp.Server(params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: any free port")
    parser.add_argument("--slots", type=int, default=2, help="number of answers at once")
    parser.add_argument("--context", type=int, default=512, help="context length of each slot, in tokens")
    parser.add_argument("--model", type=Path, default=None, help="GGUF file; default: the demo model")
    parser.add_argument("--embeddings", action="store_true", help="serve embeddings only")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args()
    model = options.model or resolve(None, print)
    server = start_server(options.port, options.slots, options.context, model, embeddings=options.embeddings)
    print(f"ready on {server.listening_address}", flush=True)
    if options.with_parent:
        sys.stdin.read()
    else:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    # Exit at once: the server's threads have no state to save.
    os._exit(0)


if __name__ == "__main__":
    main()
