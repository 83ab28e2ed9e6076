"""A picture of CPU per token and gaps against the number of streams."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tests.bench import yardsticks
from tests.bench.figures import Figures, measure
from tests.bench.load import Load
from tests.bench.programs import Program
from tests.bench.streaming import RATE, WARM, recorded, two_nodes

STREAMS = (1, 5, 20, 50, 100, 200, 400, 700, 1000, 1400, 2000)


def draw(file: Path, short: bool) -> None:
    """The gateway, and nginx where there is one. Needs matplotlib, which the tests do without."""
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit("bench: a plot needs matplotlib (pip install matplotlib)") from None
    tokens = 100 if short else 400
    with two_nodes(RATE) as front:
        recording = recorded(front, tokens)
        measure(front, WARM)
        curves = {"subnet-adapter": _curve(front, tokens)}
    if (path := yardsticks.nginx_path()) is not None:
        with yardsticks.nginx(path, recording, RATE) as front:
            curves["nginx, passing through"] = _curve(front, tokens)
    figure, (costs, gaps) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    for name, curve in curves.items():
        streams = [figures.streams for figures in curve]
        costs.plot(streams, [figures.cpu for figures in curve], marker="o", markersize=4, label=name)
        gaps.plot(streams, [figures.gap[1] for figures in curve], marker="o", markersize=4, label=name)
    _name(costs, "CPU per token, microseconds")
    _name(gaps, "gap between tokens, p99, ms")
    costs.legend()
    gaps.axhline(1000 / RATE, linestyle=":", color="grey", label="the pace")
    gaps.legend()
    gaps.set_xlabel(f"streams, {RATE:.0f} tokens/s each; gateway on one core")
    figure.savefig(file)


def _curve(front: Program, tokens: int) -> list[Figures]:
    curve = []
    for streams in STREAMS:
        curve.append(figures := measure(front, Load(streams, tokens), RATE))
        print(f"{streams} streams: {figures.cpu:.1f} microseconds, gap p99 {figures.gap[1]:.0f} ms", flush=True)
    return curve


def _name(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
