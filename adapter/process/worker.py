"""One of several gateway processes: what `adapter serve --workers 2` starts twice, see adapter/process/workers.py.

Its standard input is a socket on which it is told its settings and handed connections; when that closes, it ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from shutil import rmtree

import msgspec
import uvloop

from adapter.process.fd_passing import Taker
from adapter.process.gateway import run, set_up_logging
from adapter.process.workers import Start

_LARGEST = 1 << 18


def main() -> None:
    with socket.socket(fileno=0) as channel:
        if not (told := channel.recv(_LARGEST)):
            return
        start = msgspec.json.decode(told, type=Start)
        set_up_logging(start.settings.log_level)

        def report(line: str) -> None:
            print(f"{start.name}: {line}", flush=True)

        def found(line: str) -> None:
            if start.tells:
                print(line, flush=True)

        def ready(models: Sequence[str]) -> None:
            channel.send(msgspec.json.encode(models))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(start.settings, Taker(channel), report, ready, found))
        if _is_orphan(channel):
            # A parent that was killed could not.
            rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def _is_orphan(channel: socket.socket) -> bool:
    try:
        return not channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main()
