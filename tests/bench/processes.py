"""Rows about processes: memory, and the gain of a second worker."""

from __future__ import annotations

from statistics import mean, median
from time import monotonic

import uvloop

from tests.bench.figures import check, measure
from tests.bench.load import Load, drive
from tests.bench.programs import BACK, FRONT, can_have_workers, gateway, node
from tests.bench.streaming import RATE, WARM, late, two_nodes
from tests.bench.table import Row


def memory(runs: int, short: bool) -> list[Row]:
    """Measure fresh gateways: resident memory once they are ready, and per open stream at the peak."""
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
    """Measure the growth of memory under a steady load: the last quarter against the second, after one to settle."""
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
    """Compare two workers with one by CPU per token, in turns; each worker has as many streams as the single one.

    Load and nodes need a core, too. So only one of two workers has a core to itself, as the single one has, and counts:
    it gets every second connection, and the other is assumed to be as fast with its own core. The process that hands
    out connections counts in full.
    """
    if not can_have_workers():
        return []
    tokens = 100 if short else 500
    load, twice = Load(400, tokens), Load(800, tokens, ramp=800)
    with node(RATE) as a, node(RATE) as b, gateway(a, b) as single, gateway(a, b, workers=2) as double:
        _, alone, beside = double.processes
        alone.cpu_affinity([FRONT])
        beside.cpu_affinity([BACK])
        for front in (single, double):
            measure(front, WARM)
        pairs = [(measure(single, load, RATE), measure(double, twice, RATE)) for _ in range(runs)]
    parts = [(one.cpu, *(both.cpu * share for share in both.shares)) for one, both in pairs]
    one, hands, first, second = map(median, zip(*parts, strict=True))
    note = (
        f"{2 * first:.1f} microseconds per token of the worker with a core for itself, {one:.1f} of a single one; "
        f"{2 * second:.1f} of that beside load and nodes, {hands:.2f} of what hands out connections"
    )
    return [
        Row(
            what="two workers next to one",
            unit="times",
            goal=1.8,
            more=True,
            values=[2 * one / (hands + 2 * first) for one, hands, first, _ in parts],
            note="; ".join(filter(None, [note, late(figures for pair in pairs for figures in pair)])),
        )
    ]
