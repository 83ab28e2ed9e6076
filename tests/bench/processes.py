"""Rows about the process: its memory, and what a second worker brings."""

from __future__ import annotations

from statistics import mean, median
from time import monotonic

import uvloop

from tests.bench.figures import check, measure
from tests.bench.load import Load, drive
from tests.bench.programs import BACK, FRONT, can_have_workers, gateway, node
from tests.bench.streaming import RATE, WARM, two_nodes
from tests.bench.table import Row


def memory(runs: int, short: bool) -> list[Row]:
    """Of fresh gateways: what is resident once they are ready, and what each open stream adds at the peak."""
    load = Load(500 if short else 2000, 50 if short else 60)
    begun, each = [], []
    for _ in range(runs):
        with two_nodes(5) as front:
            begun.append(front.memory)
            measure(front, WARM)
            before = front.memory
            each.append(1024 * (measure(front, load, 5).memory - before) / load.streams)
    return [
        Row(what="memory at start", unit="MiB", goal=100, values=begun),
        Row(what=f"memory per open stream, {load.streams:,} streams", unit="KiB", goal=40, values=each),
    ]


def flat(runs: int, short: bool, minutes: float = 2.0) -> list[Row]:
    """Whether memory grows under a steady load: its second quarter against its last, after one to settle."""
    load, sizes = Load(200, 50, answers=2), []
    end = monotonic() + 60 * (0.25 if short else minutes)
    answered = 0
    with two_nodes(RATE) as front:
        while monotonic() < end:
            answers = uvloop.run(drive(front.url, load, lambda _: None))
            check(answers, load.tokens)
            answered += len(answers)
            sizes.append(front.memory)
    quarter = max(1, len(sizes) // 4)
    growth = mean(sizes[-quarter:]) - mean(sizes[quarter : 2 * quarter])
    note = f"{answered:,} answers, {sizes[0]:.1f} MiB after the first, {sizes[-1]:.1f} at the end"
    what = f"growth of memory over half of {0.25 if short else minutes:g} minutes"
    return [Row(what=what, unit="MiB", goal=2, values=[growth], note=note)]


def workers(runs: int, short: bool) -> list[Row]:
    """What two workers could take, next to one, from CPU per token with the same load on one and on two by turns.

    Load and nodes need a core, too. So of two workers one has a core for itself, as the single one has, and counts: it
    gets every second connection, and the other would be as quick on a core of its own.
    """
    if not can_have_workers():
        return []
    load = Load(400, 100 if short else 300)
    with node(RATE) as a, node(RATE) as b, gateway(a, b) as single, gateway(a, b, workers=2) as double:
        _, alone, beside = double.processes
        alone.cpu_affinity([FRONT])
        beside.cpu_affinity([BACK])
        for front in (single, double):
            measure(front, WARM)
        pairs = [(measure(single, load, RATE), measure(double, load, RATE)) for _ in range(runs)]
    one, first, second = (
        median(cpus)
        for cpus in (
            [pair[0].cpu for pair in pairs],
            [2 * both.cpu * both.shares[1] for _, both in pairs],
            [2 * both.cpu * both.shares[2] for _, both in pairs],
        )
    )
    return [
        Row(
            what="two workers next to one",
            unit="times",
            goal=1.8,
            more=True,
            values=[single.cpu / (both.cpu * both.shares[1]) for single, both in pairs],
            note=f"{first:.1f} microseconds per token of the worker with a core for itself, {one:.1f} of a single one; "
            f"{second:.1f} of that beside load and nodes",
        )
    ]
