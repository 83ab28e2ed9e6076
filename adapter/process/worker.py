"""Worker process: one of several gateways behind one address, started by workers.py as `python -m` this module.

Its standard input is a socket, over which it receives its settings and then connections. It exits when that is closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from shutil import rmtree

import msgspec
import uvloop

from adapter.lifecycle import Lifecycle
from adapter.process.fd_passing import FdReceiver
from adapter.process.gateway import run, set_up_logging
from adapter.process.workers import WorkerConfig
from subnet import threads

_MAX_MESSAGE = 1 << 18


def main() -> None:
    with socket.socket(fileno=0) as channel:
        if not (message := channel.recv(_MAX_MESSAGE)):
            return
        config = msgspec.json.decode(message, type=WorkerConfig)
        set_up_logging(config.settings.log_level)

        def report(line: str) -> None:
            print(f"{config.name}: {line}", flush=True)

        def report_node(line: str) -> None:
            if config.reports_nodes:
                print(line, flush=True)

        def ready(models: Sequence[str]) -> None:
            channel.send(msgspec.json.encode(models))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lifecycle = Lifecycle(started=config.started)
            runner.run(run(config.settings, FdReceiver(channel), report, ready, report_node, lifecycle))
        if _is_orphan(channel):
            # The parent was killed, so it cannot remove the directory.
            rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
    threads.exit_if_busy()


def _is_orphan(channel: socket.socket) -> bool:
    try:
        return not channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main()
