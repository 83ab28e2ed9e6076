"""Stepper with a context that only counts: distribution of rows, keep-alives, and prefill-only tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from subnet.engines.sampling.sampler import Sampler
from subnet.engines.stepping import Context, Row
from subnet.engines.stepping.prefill import share_rows
from subnet.engines.stepping.prefill_queue import PrefillTask
from subnet.engines.stepping.stepper import Stepper
from subnet.engines.stepping.stepping_choice import Choice, Run
from subnet.errors import EngineFailed
from subnet.generation import Delta, Job, Sampling, Start
from subnet.tensors import token_ids

VOCABULARY = 8


class CountingContext(Context):
    """Context that takes 10 ms per row on a simulated clock, and always makes token 1 the most likely."""

    def __init__(self) -> None:
        self.steps: list[list[Row]] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        self.steps.append(list(rows))
        self.now += 0.01 * len(rows)
        logits = np.eye(1, VOCABULARY, 1, dtype=np.float32)[0]
        return {sequence: logits for _, _, sequence, needs_logits in rows if needs_logits}

    def truncate(self, sequence: int, length: int) -> int:
        return length

    def copy(self, source: int, target: int) -> None:
        return None


class RecordedRun:
    """Run with `choices` choices of two tokens, after a prompt of `length` equal tokens, that records its deltas."""

    def __init__(self, length: int, *, token: int = 0, choices: int = 1, delivered: Sequence[int] = ()) -> None:
        sampling = Sampling(temperature=0, max_tokens=2)
        starts = tuple(Start(number, token_ids(list(delivered))) for number in range(choices))
        job = Job(token_ids([token] * length), sampling, starts)
        self.deltas: list[Delta] = []
        self.run = Run(job, self.deltas.append, frozenset())
        prompt, output = job.prompt.tolist(), list(delivered)
        self.choices = [
            Choice(self.run, start.choice, prompt + output, Sampler(sampling, 0, prompt, output, [0], VOCABULARY), None)
            for start in starts
        ]

    @property
    def keep_alives(self) -> list[Delta]:
        return [delta for delta in self.deltas if not delta.tokens]


class CountingTask(PrefillTask[int]):
    """Prefill-only task of `length` tokens that records the sizes of its pieces."""

    def __init__(self, context: CountingContext, length: int) -> None:
        self.context = context
        self.remaining = length
        self.pieces: list[int] = []
        self.steps_before: list[int] = []

    def advance(self, rows: int) -> int | None:
        if self.remaining < 0:
            raise LookupError("there is no such text")
        self.pieces.append(min(rows, self.remaining))
        self.steps_before.append(len(self.context.steps))
        self.context.now += 0.01 * self.pieces[-1]
        self.remaining -= self.pieces[-1]
        return None if self.remaining else sum(self.pieces)


async def run_all(context: CountingContext, runs: Sequence[RecordedRun], slots: int = 4) -> None:
    """Submit the choices of all runs at once, and wait until they are finished."""
    stepper = Stepper(context, slots, 10_000, prompt_cache=True, clock=context.clock)
    stepper.submit([choice for recorded in runs for choice in recorded.choices])
    await asyncio.gather(*(recorded.run.done for recorded in runs))
    await stepper.stop()


def first_draws(context: CountingContext) -> dict[int, int]:
    """Return, for each sequence, the number of the step after which it drew its first token."""
    steps: dict[int, int] = {}
    for number, rows in enumerate(context.steps, 1):
        for _, _, sequence, needs_logits in rows:
            if needs_logits:
                steps.setdefault(sequence, number)
    return steps


async def test_a_short_prompt_does_not_wait_for_long_ones() -> None:
    """Beside three prompts of 2000 tokens, one of 40 is processed within ten steps, while the oldest advances."""
    context = CountingContext()
    long, short = [RecordedRun(2000, token=n) for n in range(3)], RecordedRun(40, token=3)
    await run_all(context, [*long, short])
    drawn = first_draws(context)
    slot, oldest = short.choices[0].slot, long[0].choices[0].slot
    assert drawn[slot] <= 10
    assert sorted(drawn.values())[0] == drawn[slot]
    assert all(any(sequence == oldest for _, _, sequence, _ in rows) for rows in context.steps[: drawn[slot]])


async def test_short_prompts_do_not_starve_a_long_one() -> None:
    """The oldest prompt keeps its share of each step, whatever arrives after it."""
    context = CountingContext()
    long, short = RecordedRun(200), [RecordedRun(40, token=1 + n) for n in range(60)]
    await run_all(context, [long, *short], slots=2)
    drawn = first_draws(context)
    assert drawn[long.choices[0].slot] <= 200 // 2 + 1
    assert len(context.steps) > drawn[long.choices[0].slot]


@given(st.integers(4, 32), st.lists(st.integers(2, 200), max_size=8))
def test_all_rows_are_distributed(rows: int, pending: list[int]) -> None:
    """No prompt gets more rows than it has pending tokens, no row is wasted, and the oldest prompt gets some."""
    shares = share_rows(rows, pending)
    assert all(0 <= share <= length for share, length in zip(shares, pending, strict=True))
    assert sum(shares) == min(rows, sum(pending))
    assert not pending or shares[0] >= 1


async def test_waiting_choices_emit_keep_alives() -> None:
    """A choice emits at most one keep-alive a second while it waits or its prompt is processed, and none later."""
    context = CountingContext()
    prefilling, waiting = RecordedRun(500), RecordedRun(30, token=1)
    await run_all(context, [prefilling, waiting], slots=1)
    for recorded in (prefilling, waiting):
        assert 4 <= len(recorded.keep_alives) <= context.now
        assert recorded.deltas[: len(recorded.keep_alives)] == [Delta(0, [])] * len(recorded.keep_alives)
        assert [delta.tokens for delta in recorded.deltas[len(recorded.keep_alives) :]] == [[1], [1]]


async def test_choices_of_a_job_share_the_prompt() -> None:
    """The choices of a job share its prompt except for the last token, and do not report it as cached."""
    context = CountingContext()
    recorded = RecordedRun(100, choices=3)
    await run_all(context, [recorded])
    assert sum(position < 100 for rows in context.steps for _, position, _, _ in rows) == 100 + 2
    assert not any(delta.cached_tokens for delta in recorded.deltas)


async def test_a_resumed_job_reports_no_cached_tokens() -> None:
    """A prompt reused from an earlier job is reported as cached except for its last token, but not by a resumed job."""
    context = CountingContext()
    stepper = Stepper(context, 1, 10_000, prompt_cache=True, clock=context.clock)
    runs = [RecordedRun(38), RecordedRun(38), RecordedRun(38, delivered=[1])]
    for recorded in runs:
        stepper.submit(recorded.choices)
        await recorded.run.done
    await stepper.stop()
    assert [[delta.cached_tokens for delta in recorded.deltas] for recorded in runs] == [[0, 0], [37, 0], [0]]
    assert [len(rows) for rows in context.steps[-2:]] == [1, 1]


async def test_prefill_tasks_advance_between_steps() -> None:
    """A prefill-only task gets the rows that a step leaves unused, after the tasks before it are finished."""
    context = CountingContext()
    stepper = Stepper(context, 4, 10_000, prompt_cache=True, clock=context.clock)
    recorded, tasks = RecordedRun(60), [CountingTask(context, 40), CountingTask(context, 20)]
    stepper.submit(recorded.choices)
    assert await asyncio.gather(*(stepper.prefill(task) for task in tasks)) == [40, 20]
    await recorded.run.done
    await stepper.stop()
    assert tasks[0].steps_before[-1] <= tasks[1].steps_before[0]
    for task in tasks:
        pieces = zip(task.pieces, task.steps_before, strict=True)
        assert all(piece + len(context.steps[step - 1]) <= 9 for piece, step in pieces)


async def test_a_failed_or_cancelled_task_does_not_block_others() -> None:
    """A prefill-only task that fails or is cancelled does not block others; stopping fails those that remain."""
    context = CountingContext()
    stepper = Stepper(context, 1, 10_000, prompt_cache=True, clock=context.clock)
    cancelled = asyncio.create_task(stepper.prefill(CountingTask(context, 10**9)))
    failing = asyncio.create_task(stepper.prefill(CountingTask(context, -1)))
    good = asyncio.create_task(stepper.prefill(CountingTask(context, 5)))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(EngineFailed, match="no such text"):
        await failing
    assert await good == 5
    remaining = asyncio.create_task(stepper.prefill(CountingTask(context, 10**9)))
    await asyncio.sleep(0)
    await stepper.stop()
    with pytest.raises(EngineFailed, match="stopped"):
        await remaining
    with pytest.raises(EngineFailed, match="stopped"):
        await stepper.prefill(CountingTask(context, 1))
    with pytest.raises(EngineFailed, match="stopped"):
        stepper.submit(RecordedRun(1).choices)
