"""Worker process: one of several gateways behind one address, started by workers.py as `python -m` this module.

Its standard input is a socket, over which it receives its settings and then connections. It exits when that is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import msgspec
import uvloop

from adapter.lifecycle import Lifecycle
from adapter.process.count_channel import WorkerCounts
from adapter.process.fd_passing import FdReceiver
from adapter.process.gateway import run, set_up_logging
from adapter.process.serve import Ready
from adapter.process.supervisor import Report
from adapter.process.workers import WorkerConfig
from subnet import threads
from subnet.output import print_line

_MAX_MESSAGE = 1 << 18


def main() -> None:
    with socket.socket(fileno=0) as channel:
        if not (message := channel.recv(_MAX_MESSAGE)):
            return
        config = msgspec.json.decode(message, type=WorkerConfig)
        set_up_logging(config.settings.log_level)

        def report(line: str) -> None:
            print_line(f"{config.name}: {line}")

        def report_node(line: str) -> None:
            if config.reports_nodes:
                print_line(line)

        def ready(models: Sequence[str]) -> None:
            channel.send(msgspec.json.encode(models))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(config, FdReceiver(channel), report, ready, report_node))
    threads.exit_if_busy()


async def _run(
    config: WorkerConfig,
    receiver: FdReceiver,
    report: Report,
    ready: Ready,
    report_node: Report,
) -> None:
    lifecycle = Lifecycle(started=config.started)
    async with WorkerCounts(socket.socket(fileno=config.counts)) as counts:
        await run(config.settings, receiver, report, ready, report_node, lifecycle, counts)


if __name__ == "__main__":
    main()
