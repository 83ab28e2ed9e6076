"""What the gateway costs: `python -m tests.bench` starts echo nodes and a gateway, and drives N streams through it.

With --url and --pid it drives a gateway that runs already. Prints tokens per second, time to first token, gaps
between tokens, the gateway's CPU per token and its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psutil
import uvloop

_EVENT = b"\n\n"
_FIRST = re.compile(rb'"content":"[^"]')


class Load(msgspec.Struct, frozen=True):
    """`streams` answers of `tokens` tokens each, all at once."""

    url: str
    model: str
    streams: int
    tokens: int


class Stream(asyncio.Protocol):
    """One streamed answer; keeps the times at which its chunks arrived, in seconds."""

    def __init__(self, request: bytes) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.sent = 0.0
        self.times: list[float] = []
        self.complete = False
        self._request = request
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's classes.
        self._transport = cast(asyncio.WriteTransport, transport)
        self.sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._tail + data
        if self.times:
            self.times += [now] * data.count(_EVENT)
        elif _FIRST.search(data):
            self.times.append(now)
        self._tail = data[-1:] if data.endswith(b"\n") and not data.endswith(_EVENT) else b""
        if b"data: [DONE]" in data:
            self.complete = True
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Figures(msgspec.Struct, frozen=True):
    """Of one run. Times in milliseconds, CPU in microseconds of the gateway's per token, memory in MiB."""

    streams: int
    complete: int
    tokens: int
    tokens_per_second: float
    first_token: tuple[float, float]
    gap: tuple[float, float]
    cpu_per_token: float
    memory: float

    def __str__(self) -> str:
        return (
            f"{self.streams} streams, {self.complete} complete, {self.tokens} tokens\n"
            f"  {self.tokens_per_second:>10,.0f} tokens/s\n"
            f"  {self.first_token[0]:>10.1f} ms to the first token (p50), {self.first_token[1]:.1f} (p99)\n"
            f"  {self.gap[0]:>10.1f} ms between tokens (p50), {self.gap[1]:.1f} (p99)\n"
            f"  {self.cpu_per_token:>10.1f} microseconds of gateway CPU per token\n"
            f"  {self.memory:>10.0f} MiB resident in the gateway"
        )


async def drive(load: Load, gateway: psutil.Process) -> Figures:
    """Run the load once. A stream that does not end with [DONE] is not complete."""
    loop, address = asyncio.get_running_loop(), urlsplit(load.url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    before, started = _cpu(gateway), time.perf_counter()
    streams = []
    for number in range(load.streams):
        request = _request(load, number, address.netloc)
        _, stream = await loop.create_connection(partial(Stream, request), host, port)
        streams.append(stream)
    memory = 0.0
    pending = {stream.done for stream in streams}
    while pending:
        _, pending = await asyncio.wait(pending, timeout=0.5)
        memory = max(memory, gateway.memory_info().rss / 2**20)
    spent, took = _cpu(gateway) - before, time.perf_counter() - started
    return _figures(streams, load, spent, took, memory)


def _figures(streams: list[Stream], load: Load, spent: float, took: float, memory: float) -> Figures:
    complete = sum(stream.complete for stream in streams)
    tokens = load.tokens * complete
    first = [1000 * (stream.times[0] - stream.sent) for stream in streams if stream.times]
    gaps = [gap for stream in streams for gap in (1000 * np.diff(stream.times[: load.tokens])).tolist()]
    return Figures(
        streams=load.streams,
        complete=complete,
        tokens=tokens,
        tokens_per_second=tokens / took,
        first_token=_percentiles(first),
        gap=_percentiles(gaps),
        cpu_per_token=1e6 * spent / max(1, tokens),
        memory=memory,
    )


def _percentiles(values: list[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(values or [math.nan], [50, 99])
    return float(p50), float(p99)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _request(load: Load, number: int, host: str) -> bytes:
    body = json.dumps(
        {
            "model": load.model,
            "messages": [{"role": "user", "content": f"Stream {number}: tell me something."}],
            "max_tokens": load.tokens,
            "seed": number,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def process(*arguments: str, cpu: int, ready: str) -> Iterator[tuple[psutil.Process, re.Match[str]]]:
    """A Python process of ours, pinned to one core, from the line that `ready` matches until the block's end."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
        try:
            running = psutil.Process(child.pid)
            if hasattr(running, "cpu_affinity"):
                running.cpu_affinity([cpu])
            assert child.stdout is not None
            for line in child.stdout:
                if (match := re.search(ready, line)) is not None:
                    yield running, match
                    break
            else:
                raise SystemExit(f"{arguments[0]} did not start")
        finally:
            child.terminate()
            child.wait()


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        if options.url:
            gateway, url = psutil.Process(options.pid), options.url
        else:
            nodes = [stack.enter_context(_node(options, cores[-1])) for _ in range(options.nodes)]
            arguments = [part for node in nodes for part in ("--node", node)]
            gateway, match = stack.enter_context(
                process(
                    *("adapter.cli", "serve", "--port", "0", "--log-level", "warning", *arguments),
                    cpu=cores[0],
                    ready=r"ready on (\S+)",
                )
            )
            url = match[1]
        os.sched_setaffinity(0, {cores[-1]})
        print(f"{platform.processor() or platform.machine()}, {len(cores)} cores, Python {platform.python_version()}")
        load = Load(url, options.model, options.streams, options.tokens)
        uvloop.run(drive(msgspec.structs.replace(load, streams=min(20, load.streams), tokens=20), gateway))
        for _ in range(options.runs):
            print(uvloop.run(drive(load, gateway)), flush=True)


@contextmanager
def _node(options: argparse.Namespace, cpu: int) -> Iterator[str]:
    rate = ("--echo-rate", str(options.rate), "--concurrency", "100000")
    arguments = ("subnet.cli", "node", "--engine", "echo", "--port", "0", *rate)
    with process(*arguments, cpu=cpu, ready=r"on (http://\S+)") as (_, match):
        yield match[1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--url", help="a gateway that runs already; without it one is started")
    parser.add_argument("--pid", type=int, help="its process id, to measure CPU and memory")
    parser.add_argument("--model", default="echo", help="the model to ask for (default: echo)")
    parser.add_argument("--streams", type=int, default=400, help="answers at once (default: 400)")
    parser.add_argument("--tokens", type=int, default=500, help="tokens of an answer (default: 500)")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second and stream, 0: unpaced (default: 50)")
    parser.add_argument("--nodes", type=int, default=2, help="echo nodes to start (default: 2)")
    parser.add_argument("--runs", type=int, default=3, help="times to run the load (default: 3)")
    options = parser.parse_args()
    if options.url and not options.pid:
        parser.error("--url needs --pid")
    return options


if __name__ == "__main__":
    main()
