"""Rows about requests: time to first token, short answers, and long prompts beside running streams."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import uvloop

from tests.bench.direct import first_tokens
from tests.bench.figures import check, measure, percentiles
from tests.bench.load import Answer, Load, ask, ask_all, drive
from tests.bench.programs import BACK, Program, gateway, node, python, running
from tests.bench.streaming import RATE, WARM, two_nodes
from tests.bench.table import Row

_LONG = "Tell me of the sea and of all that swims in it. " * 2084


def first_token(runs: int, short: bool) -> list[Row]:
    """Measure the time that the gateway adds to a first token: from the client's first byte sent to the first token
    read, less the engine's own time, less the median of the same measured at the node itself. Each stream ends and asks
    again at random times, so that 100 streams are open but do not start together.
    """
    load = Load(100, 100, answers=2 if short else 6, ramp=50, pause=0.2)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "first"
        with (
            running(python("tests.bench.timed_node", str(file), str(RATE)), [BACK]) as timed,
            gateway(timed) as front,
        ):
            measure(front, WARM)
            both = [
                (_waits(_through(front, load), load, file), _waits(_past(timed, load), load, file)) for _ in range(runs)
            ]
    return [
        Row(
            what=f"time to first token added, {name}, 100 streams",
            unit="ms",
            goal=goal,
            values=[through[at] - past[0] for through, past in both],
            note=f"{median(through[at] for through, _ in both):.2f} through the gateway, "
            f"{median(past[at] for _, past in both):.2f} past it",
        )
        for at, (name, goal) in enumerate((("p50", 1.0), ("p99", 5.0)))
    ]


def _through(front: Program, load: Load) -> list[tuple[int, float]]:
    answers = uvloop.run(drive(front.url, load))
    check(answers, load.tokens)
    return [(answer.number, answer.first - answer.sent) for answer in answers]


def _past(timed: Program, load: Load) -> list[tuple[int, float]]:
    return uvloop.run(first_tokens(timed.url, load))


def _waits(waited: list[tuple[int, float]], load: Load, file: Path) -> tuple[float, ...]:
    engine = dict(line.split() for line in file.read_text().splitlines())
    # The first answer of each stream is skipped, because it starts at the pace of the ramp.
    return percentiles([1000 * (wait - float(engine[str(number)])) for number, wait in waited[load.streams :]], 50, 99)


def short_answers(runs: int, short: bool) -> list[Row]:
    """Measure answers of ten tokens, not streamed, over 32 connections that are kept open."""
    values, clock = [], []
    with two_nodes(0) as front:
        for _ in range(runs + 1):
            before, begin = sum(front.cpu.values()), perf_counter()
            asked = uvloop.run(
                ask_all(front.url, 2000 if short else 10_000, 10, b'"completion_tokens":10', stream=False)
            )
            clock.append(asked / (perf_counter() - begin))
            values.append(asked / (sum(front.cpu.values()) - before))
    return [
        Row(
            what="requests per second of gateway CPU, 10 tokens, not streamed",
            unit="requests",
            goal=3000,
            more=True,
            values=values[1:],
            note=f"{median(clock[1:]):,.0f} a second by the clock",
        )
    ]


def long_prompts(runs: int, short: bool) -> list[Row]:
    """Measure the delay of 50 streams' tokens while prompts of 100,000 characters are tokenized, against their usual
    pace.

    Those prompts go to another node, which runs at the lowest priority.
    """
    with node(RATE) as one, node(0, "--model-id", "other", nice=19) as other, gateway(one, other) as front:
        measure(front, WARM)
        late = [uvloop.run(_late(front, 3.0 if short else 6.0)) for _ in range(runs)]
    quiet = median(before for before, _ in late)
    return [
        Row(
            what="worst delay of tokens of 50 streams by prompts of 100,000 characters",
            unit="ms",
            goal=10,
            values=[during for _, during in late],
            note=f"without such prompts {quiet:.1f}",
        )
    ]


async def _late(front: Program, half: float) -> tuple[float, float]:
    """Return the worst delays in milliseconds: in `half` seconds without long prompts, and in as many with them."""
    load = Load(50, int(2 * half * RATE), ramp=200)
    streams = asyncio.create_task(drive(front.url, load))
    await asyncio.sleep(half)
    begin, asked = perf_counter(), list[Answer]()
    while perf_counter() < begin + half - 1:
        long = await ask(front.url, "other", 1, _LONG)
        await long.done
        asked.append(long)
        await asyncio.sleep(0.1)
    check(asked, 1)
    end = perf_counter()
    answers = await streams
    check(answers, load.tokens)
    return _worst(answers, begin - half + 1, begin), _worst(answers, begin, end)


def _worst(answers: list[Answer], begin: float, end: float) -> float:
    worst = 0.0
    for answer in answers:
        times = np.array(answer.times[1:-2])
        offsets = times - np.arange(len(times)) / RATE
        within = offsets[(times >= begin) & (times <= end)]
        worst = max(worst, float(np.max(within - np.median(offsets))))
    return 1000 * worst
