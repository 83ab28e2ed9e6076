"""Command that measures all rows of the table, or some. See --help."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from subnet.version import VERSION
from tests.bench import chat_lane, plot, processes, requests, streaming
from tests.bench.load import Incomplete
from tests.bench.programs import BACK, CORES, FRONT
from tests.bench.table import Row, table

ROWS: dict[str, Callable[[int, bool], list[Row]]] = {
    "cost": streaming.cost,
    "messages-cost": streaming.messages_cost,
    "keeping-up": streaming.keeping_up,
    "unpaced": streaming.unpaced,
    "first-token": requests.first_token,
    "short-answers": requests.short_answers,
    "memory": processes.memory,
    "flat": processes.flat,
    "ten-thousand": streaming.ten_thousand,
    "workers": processes.workers,
    "long-prompts": requests.long_prompts,
    "chat-cost": chat_lane.chat_cost,
    "chat-tls": chat_lane.chat_tls,
    "chat-burst": chat_lane.chat_burst,
    "chat-requests": chat_lane.chat_requests,
}


class Report(msgspec.Struct, frozen=True):
    machine: str
    rows: list[Row]


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return (
        f"{name}, {len(CORES)} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"uvloop {version('uvloop')}, uvicorn {version('uvicorn')}, subnet-adapter {VERSION}"
    )


def main() -> None:
    options = _options()
    os.sched_setaffinity(0, {BACK})
    _allow_files()
    print(f"{machine()}\ngateway on core {FRONT}, load and nodes on core {BACK}", flush=True)
    if options.plot:
        plot.draw(options.plot, options.quick)
        return
    rows, wrong = list[Row](), list[str]()
    for name in options.rows or ROWS:
        made = ROWS[name] if name != "flat" else partial(processes.flat, minutes=options.minutes)
        try:
            for row in made(options.runs, options.quick):
                rows.append(row)
                print(f"{name}: " + ", ".join(filter(None, row.cells())), flush=True)
        except Incomplete as error:
            wrong.append(f"{name}: {error}")
            print(wrong[-1], flush=True)
    print(f"\n{table(rows)}")
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(Report(machine(), rows))))
    if wrong:
        sys.exit("\n".join(wrong))


def _allow_files() -> None:
    """Raise the limit of open files to its maximum, for this process and its children."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure a gateway. It fails when answers are incomplete, never for being slow."
    )
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="all without any", metavar="ROW")
    parser.epilog = f"rows: {', '.join(ROWS)}"
    parser.add_argument("--runs", type=int, default=5, help="of each row; the median counts (default: 5)")
    parser.add_argument("--quick", action="store_true", help="shorter runs: for a look, not for the record")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long memory is watched (default: 2)")
    parser.add_argument("--json", type=Path, help="write the figures of all runs to this file")
    parser.add_argument(
        "--plot", type=Path, help="instead of the table, draw cost and gaps against streams to this file"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
