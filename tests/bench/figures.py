"""Figures of one run of a load."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from tests.bench.load import AROUND, CHAT, Answer, Incomplete, Load, drive
from tests.bench.programs import Program

# Seconds: a stream has fallen behind if its last token is later than its node's pace by more than this.
_BEHIND = 0.1


class Figures(msgspec.Struct, frozen=True):
    """Figures of one run. `cpu` is in microseconds per token, `gap` (p50, p99, maximum) in milliseconds between
    tokens.
    """

    streams: int
    complete: int
    per_second: float
    per_cpu_second: float
    cpu: float
    gap: tuple[float, float, float]
    behind: int
    shares: list[float]
    memory: float


def measure(program: Program, load: Load, rate: float = 0.0) -> Figures:
    """Run the load against `program`, whose nodes send `rate` tokens/s per stream. Raises Incomplete.

    CPU is everything that the program used from the first connection to the last byte: requests, tokens and idling.
    """
    memory = [program.memory]

    def look(streams: int) -> None:
        if streams % 200 == 0 or streams == load.streams:
            memory.append(program.memory)

    before, begin = program.cpu, perf_counter()
    answers = uvloop.run(drive(program.url, load, look))
    took, spent = perf_counter() - begin, [used - before.get(pid, 0.0) for pid, used in program.cpu.items()]
    memory.append(program.memory)
    check(answers, load.tokens, load.path)
    tokens = load.tokens * len(answers)
    return Figures(
        streams=load.streams,
        complete=len(answers),
        per_second=tokens / took,
        per_cpu_second=tokens / sum(spent),
        cpu=1e6 * sum(spent) / tokens,
        gap=_gaps(answers, load.tokens),
        behind=sum(_lag(answer, load.tokens, rate) > _BEHIND for answer in answers) if rate else 0,
        shares=[used / sum(spent) for used in spent],
        memory=max(memory),
    )


def check(answers: Sequence[Answer], tokens: int, path: str = CHAT) -> None:
    """Raise Incomplete unless each answer is complete and has one event per token."""
    wrong = [answer for answer in answers if not answer.ended or len(answer.times) != tokens + AROUND[path]]
    if wrong:
        one = wrong[0]
        raise Incomplete(
            f"{len(wrong)} of {len(answers)} answers are not right: the first has status {one.status or 'none'}, "
            f"{len(one.times)} events for {tokens} tokens and {'an' if one.ended else 'no'} end"
        )


def _gaps(answers: Sequence[Answer], tokens: int) -> tuple[float, float, float]:
    gaps = np.concatenate([np.diff(answer.times[1 : tokens + 1]) for answer in answers])
    return percentiles(1000 * gaps, 50, 99, 100)  # type: ignore[return-value]


def _lag(answer: Answer, tokens: int, rate: float) -> float:
    return answer.times[tokens] - answer.times[1] - (tokens - 1) / rate


def percentiles(values: Sequence[float] | NDArray[np.float64], *shares: float) -> tuple[float, ...]:
    return tuple(np.percentile(values, shares).tolist())
