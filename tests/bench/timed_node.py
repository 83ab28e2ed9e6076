"""Echo node that records its times to first tokens: `python -m tests.bench.timed_node FILE [rate]`."""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

from subnet.aio import Sink
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.generation import Delta, Job
from subnet.node.run import listening
from subnet.node.server import Node


class TimedEngine(EchoEngine):
    """Engine that writes a line for each answer: its seed, and the seconds from the request to the first delta."""

    def __init__(self, options: EchoOptions, file: str) -> None:
        super().__init__(options=options)
        self._file = open(file, "w", buffering=1)  # noqa: SIM115 it stays open as long as the process lives

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        asked, first = perf_counter(), True

        def timed(delta: Delta) -> None:
            nonlocal first
            if first:
                first = False
                self._file.write(f"{job.sampling.seed} {perf_counter() - asked}\n")
            emit(delta)

        await super().run(job, timed)


async def main(file: str, rate: float) -> None:
    async with TimedEngine(EchoOptions(rate=rate, capacity=100_000), file) as engine:
        async with listening(Node(engine), "127.0.0.1", 0) as address:
            print(f"serving {engine.card.id} on {address}", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
