"""Plot of CPU per token and gaps against the number of streams."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.bench.chat_lane import side_by_side
from tests.bench.figures import Figures, measure
from tests.bench.load import Load
from tests.bench.programs import Program
from tests.bench.streaming import RATE, two_nodes

STREAMS = (1, 5, 20, 50, 100, 200, 400, 700, 1000, 1400, 2000)
_TICKS = (1, 5, 20, 50, 100, 200, 400, 1000, 2000)
_COSTS = (5, 10, 20, 50, 100, 200, 500)


def draw(file: Path, short: bool) -> None:
    """Measure both lanes of the gateway, and nginx and SMG where they are installed, which pass through what the chat
    lane gets. Needs matplotlib, which is not a dependency of the tests.
    """
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit("bench: a plot needs matplotlib (pip install matplotlib)") from None
    tokens = 100 if short else 400
    with ExitStack() as stack:
        programs = {"subnet-adapter, token lane": stack.enter_context(two_nodes(RATE))}
        beside = stack.enter_context(side_by_side(tokens, RATE))
        programs |= {name or "subnet-adapter, chat lane": program for name, program in beside.items()}
        for program in programs.values():
            measure(program, Load(20, tokens))
        curves: dict[str, list[Figures]] = {name: [] for name in programs}
        for streams in STREAMS:
            for name, program in programs.items():
                curves[name].append(_point(name, program, Load(streams, tokens)))
    paint(pyplot, curves, file)


def paint(pyplot: Any, curves: dict[str, list[Figures]], file: Path) -> None:
    """Draw each curve's CPU and gaps."""
    pyplot.rcParams["svg.fonttype"] = "none"
    figure, (costs, gaps) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    for name, curve in curves.items():
        streams = [figures.streams for figures in curve]
        costs.plot(streams, [figures.cpu for figures in curve], marker="o", markersize=4, label=name)
        gaps.plot(streams, [figures.gap[1] for figures in curve], marker="o", markersize=4, label=name)
    gaps.axhline(1000 / RATE, linestyle=":", color="grey", label="the pace of the nodes")
    _finish(costs, "CPU per token, microseconds")
    costs.set_yscale("log")
    costs.set_yticks(_COSTS, [str(cost) for cost in _COSTS])
    costs.minorticks_off()
    _finish(gaps, "gap between tokens, p99, ms")
    gaps.set_ylim(bottom=0)
    gaps.set_xlabel(f"streams at once, {RATE:.0f} tokens/s each; one process on one core")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {})


def _point(name: str, program: Program, load: Load) -> Figures:
    figures = measure(program, load, RATE)
    print(f"{name}, {load.streams}: {figures.cpu:.1f} microseconds, gap p99 {figures.gap[1]:.0f} ms", flush=True)
    return figures


def _finish(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{streams:,}" for streams in _TICKS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
