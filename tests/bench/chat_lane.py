"""Rows about the chat lane: a gateway in front of a server that replays events, beside nginx and SMG in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec
import uvloop

from tests.bench import yardsticks
from tests.bench.figures import Figures, check, measure, percentiles
from tests.bench.load import Load, ask_all, drive
from tests.bench.programs import Program, gateway
from tests.bench.streaming import RATE, late, recorded, two_nodes
from tests.bench.table import Row

_MISSING = "no nginx found: install nginx-light, and it is measured too"
_NGINX = "nginx"
# Events of ten tokens, the finish reason and the end.
_SHORT = 10

Programs = dict[str, Program]
Values = dict[str, list[float]]
T = TypeVar("T")


def chat_cost(runs: int, short: bool) -> list[Row]:
    """Measure the CPU per token with 100 and with 400 streams, and the memory per stream of the latter."""
    tokens = 100 if short else 500
    with side_by_side(tokens, RATE) as programs:
        for program in programs.values():
            measure(program, Load(20, tokens))
        before = programs[""].memory
        few, many = (_turns(programs, Load(streams, tokens), runs) for streams in (100, 400))
    each = [1024 * (turn[""].memory - before) / 400 for turn in many]
    memory = Row(what="memory per open stream, chat lane, 400 streams", unit="KiB", goal=40, values=each)
    return [_cost(100, few), _cost(400, many), memory]


def chat_tls(runs: int, short: bool) -> list[Row]:
    """Measure the CPU per token of 400 streams from the same server over TLS, which has no goal."""
    load = Load(400, 100 if short else 500)
    with yardsticks.own_certificate() as certificate, side_by_side(load.tokens, RATE, certificate) as programs:
        for program in programs.values():
            measure(program, Load(20, load.tokens))
        row = _cost(400, _turns(programs, load, runs))
    return [msgspec.structs.replace(row, what=f"{row.what}, TLS to the server", goal=None)]


def _turns(programs: Programs, load: Load, runs: int) -> list[dict[str, Figures]]:
    return [{name: measure(program, load, RATE) for name, program in programs.items()} for _ in range(runs)]


def _cost(streams: int, turns: list[dict[str, Figures]]) -> Row:
    what = f"CPU per token, chat lane, {streams} streams x {RATE:.0f} tokens/s"
    note = late(figures for turn in turns for figures in turn.values())
    return _row(what, "microseconds", 20.0, 1.5, _by_program(turns, lambda figures: figures.cpu), note)


def chat_burst(runs: int, short: bool) -> list[Row]:
    """Measure the time from a connection to its first token, for 400 requests that are made at once."""
    load = Load(400, 20, ramp=inf)
    with side_by_side(load.tokens, RATE) as programs:
        for program in programs.values():
            measure(program, load)
        turns = [{name: _first_token(program, load) for name, program in programs.items()} for _ in range(runs)]
    values = _by_program(turns, lambda milliseconds: milliseconds)
    return [_row("first token, chat lane, 400 requests at once, p50", "ms", 40.0, 15.0, values)]


def _first_token(program: Program, load: Load) -> float:
    answers = uvloop.run(drive(program.url, load))
    check(answers, load.tokens)
    return percentiles([1000 * (answer.first - answer.sent) for answer in answers], 50)[0]


def chat_requests(runs: int, short: bool) -> list[Row]:
    """Measure the CPU of streamed answers of ten tokens that the server sends at once, over 32 kept connections."""
    total = 1000 if short else 5000
    with side_by_side(_SHORT, 0) as programs:
        for program in programs.values():
            _per_request(program, 500)
        turns = [{name: _per_request(program, total) for name, program in programs.items()} for _ in range(runs)]
    values = _by_program(turns, lambda microseconds: microseconds)
    return [_row("CPU per request, chat lane, 10 tokens", "microseconds", 250.0, 12.0, values)]


def _per_request(program: Program, total: int) -> float:
    before = sum(program.cpu.values())
    asked = uvloop.run(ask_all(program.url, total, _SHORT, b"data: [DONE]", stream=True))
    return 1e6 * (sum(program.cpu.values()) - before) / asked


@contextmanager
def side_by_side(tokens: int, rate: float, certificate: Path | None = None) -> Iterator[Programs]:
    """Run a gateway, named "", and nginx and SMG where they are installed, in front of a server that replays an answer
    of the gateway, with a `certificate` over TLS.
    """
    with two_nodes(0) as front:
        recording = recorded(front, tokens)
    with ExitStack() as stack:
        upstream = stack.enter_context(yardsticks.replay(recording, rate, certificate))
        programs = {"": stack.enter_context(gateway(upstream, kind="openai", certificate=certificate))}
        if (path := yardsticks.nginx_path()) is not None:
            name = f"{_NGINX} {yardsticks.nginx_version(path)} passing it through"
            programs[name] = stack.enter_context(yardsticks.nginx_before(path, upstream))
        if certificate is None and (path := yardsticks.smg_path()) is not None:
            name = f"SMG {yardsticks.smg_version(path)}"
            programs[name] = stack.enter_context(yardsticks.smg_before(path, upstream))
        yield programs


def _by_program(turns: Sequence[dict[str, T]], figure: Callable[[T], float]) -> Values:
    return {name: [figure(turn[name]) for turn in turns] for name in turns[0]}


def _row(what: str, unit: str, goal: float, times: float, values: Values, note: str = "") -> Row:
    """Return a row whose goal is `goal`, or `times` the figure of nginx if that is more."""
    (_, ours), *beside = values.items()
    goals = [goal, *(times * median(figures) for name, figures in beside if name.startswith(_NGINX))]
    missing = "" if len(goals) > 1 else _MISSING
    return Row(
        what=what,
        unit=unit,
        goal=max(goals),
        values=ours,
        beside=dict(beside),
        note="; ".join(filter(None, [missing, note])),
    )
