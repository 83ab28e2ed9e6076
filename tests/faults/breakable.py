"""Node whose engine fails all running answers on SIGUSR1: `python -m tests.faults.breakable`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from subnet.aio import Sink
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.generation import Delta, Job
from subnet.node.run import listening
from subnet.node.server import Node


class Breakable(EchoEngine):
    def __init__(self, options: EchoOptions) -> None:
        super().__init__(options=options)
        self._runs: set[asyncio.Task[None]] = set()

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        run = asyncio.create_task(self.write(job, emit))
        self._runs.add(run)
        try:
            await asyncio.wait({run})
            if run.cancelled():
                raise ZeroDivisionError("the engine broke, as it was told")
            run.result()
        finally:
            run.cancel()
            self._runs.discard(run)

    async def write(self, job: Job, emit: Sink[Delta]) -> None:
        """Run the job; cancelled if the engine is to fail."""
        await super().run(job, emit)

    def break_down(self) -> None:
        for run in self._runs:
            run.cancel()


async def serve(engine: Breakable) -> None:
    """Serve on the port of the command line until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_known_args()[0].port
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    async with engine:
        loop.add_signal_handler(signal.SIGUSR1, engine.break_down)
        async with listening(Node(engine), "127.0.0.1", port) as address:
            print(f"serving {engine.card.id} on {address}", flush=True)
            await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(Breakable(EchoOptions(rate=100.0))))
