"""Stepper with a context that only counts: batches and their order, keep-alives, and prefill-only tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from subnet.engines.sampling.sampler import Sampler
from subnet.engines.stepping import Context, Row
from subnet.engines.stepping.prefill_queue import PrefillTask
from subnet.engines.stepping.stepper import Stepper
from subnet.engines.stepping.stepping_choice import Choice, Run
from subnet.errors import EngineFailed
from subnet.generation import Delta, Job, Sampling, Start
from subnet.tensors import token_ids

VOCABULARY = 8


class CountingContext(Context):
    """Context that takes 10 ms per row on a simulated clock, and always makes token 1 the most likely."""

    piece_length, max_rows, max_sequences = 16, 3, 2

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


class GatedContext(CountingContext):
    """Context whose first step waits until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        self.gate.wait(10)
        return super().decode(rows)


class RecordedRun:
    """Run with `choices` choices of two tokens, after a prompt of `length` equal tokens, that records its deltas."""

    def __init__(
        self, length: int, *, token: int = 0, choices: int = 1, delivered: Sequence[int] = (), max_tokens: int = 2
    ) -> None:
        sampling = Sampling(temperature=0, max_tokens=max_tokens)
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

    def advance(self) -> int | None:
        if self.remaining < 0:
            raise LookupError("there is no such text")
        self.pieces.append(min(CountingContext.piece_length, self.remaining))
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


async def test_prompts_are_cut_at_fixed_positions() -> None:
    """Each piece of a prompt ends at a multiple of the piece length or with the prompt, and is alone in its batch."""
    context = CountingContext()
    runs = [RecordedRun(40, token=n, max_tokens=9, delivered=[1] * n) for n in range(3)]
    await run_all(context, runs)
    pieces = [rows for rows in context.steps if rows[0][1] < 40]
    assert sorted((rows[0][1], rows[-1][1]) for rows in pieces) == [(0, 15)] * 3 + [(16, 31)] * 3 + [(32, 39)] * 3
    assert all(len({sequence for _, _, sequence, _ in rows}) == 1 for rows in pieces)


async def test_batches_of_answers_are_bounded() -> None:
    """Delivered tokens are decoded a few at a time, and few sequences at once, one row each."""
    context = CountingContext()
    runs = [RecordedRun(1, token=n, max_tokens=20, delivered=[1] * 8 * (n == 0)) for n in range(4)]
    await run_all(context, runs)
    batches = [[sequence for _, _, sequence, _ in rows] for rows in context.steps if rows[0][1] > 0]
    assert {len(batch) for batch in batches if len(set(batch)) == 1} == {1, 2, 3}
    assert {len(batch) for batch in batches if len(set(batch)) > 1} == {2}
    assert [len(recorded.deltas) for recorded in runs] == [12, 20, 20, 20]


async def test_running_answers_wait_for_one_piece_only() -> None:
    """While a long prompt is processed, a running answer gets tokens after each piece, in a quarter of the time."""
    context = CountingContext()
    await run_all(context, [RecordedRun(1, token=1, max_tokens=60), RecordedRun(160, token=2)])
    long = [len(rows) == 16 for rows in context.steps]
    first, last = long.index(True), len(long) - long[::-1].index(True)
    assert long.count(True) == 10
    assert not any(one and other for one, other in pairwise(long))
    assert 4 <= long[first:last].count(False) / 9 <= 6


async def test_a_short_prompt_does_not_wait_for_long_ones() -> None:
    """Beside three prompts of 2000 tokens, one of 40 is processed within five steps, while the oldest advances."""
    context = CountingContext()
    long, short = [RecordedRun(2000, token=n) for n in range(3)], RecordedRun(40, token=3)
    await run_all(context, [*long, short])
    drawn = first_draws(context)
    slot, oldest = short.choices[0].slot, long[0].choices[0].slot
    assert drawn[slot] <= 5
    assert sorted(drawn.values())[0] == drawn[slot]
    assert any(sequence == oldest for rows in context.steps[:5] for _, _, sequence, _ in rows)


async def test_short_prompts_do_not_starve_a_long_one() -> None:
    """The oldest prompt keeps its share of the pieces, whatever arrives after it."""
    context = CountingContext()
    long, short = RecordedRun(200), [RecordedRun(40, token=1 + n) for n in range(60)]
    await run_all(context, [long, *short], slots=2)
    drawn = first_draws(context)
    assert drawn[long.choices[0].slot] <= 4 * 13 * 2
    assert len(context.steps) > drawn[long.choices[0].slot]


async def test_waiting_choices_emit_keep_alives() -> None:
    """A choice emits at most one keep-alive a second while it waits or its prompt is processed, and none later."""
    context = CountingContext()
    prefilling, waiting = RecordedRun(500), RecordedRun(30, token=1)
    await run_all(context, [prefilling, waiting], slots=1)
    for recorded in (prefilling, waiting):
        assert 4 <= len(recorded.keep_alives) <= context.now
        assert recorded.deltas[: len(recorded.keep_alives)] == [Delta(0, [])] * len(recorded.keep_alives)
        assert [delta.tokens for delta in recorded.deltas[len(recorded.keep_alives) :]] == [[1], [1]]


@pytest.mark.parametrize("slots", [1, 2, 4])
async def test_choices_of_a_job_share_the_prompt(slots: int) -> None:
    """The choices of a job share its prompt and the logits after it, and do not report it as cached."""
    context = CountingContext()
    recorded = RecordedRun(100, choices=3)
    await run_all(context, [recorded], slots)
    # A choice that gets a slot after the others have finished reuses the whole pieces.
    again = {4: 0, 2: 4, 1: 2 * 4}[slots]
    assert sum(position < 100 for rows in context.steps for _, position, _, _ in rows) == 100 + again
    assert sorted(delta.choice for delta in recorded.deltas if delta.tokens) == [0, 0, 1, 1, 2, 2]
    assert not any(delta.cached_tokens for delta in recorded.deltas)


async def test_choices_of_a_resumed_job_share_the_prompt() -> None:
    """A choice without tokens shares the prompt with one that resumes, and both get all their tokens."""
    context = CountingContext()
    recorded = RecordedRun(20, choices=2)
    recorded.choices[0].tokens.append(1)
    await run_all(context, [recorded])
    assert sum(position < 20 for rows in context.steps for _, position, _, _ in rows) == 20
    assert sorted(delta.choice for delta in recorded.deltas if delta.tokens) == [0, 1, 1]


async def test_a_resumed_job_reports_no_cached_tokens() -> None:
    """The whole pieces of a prompt but the last are reused and reported as cached, but not by a resumed job."""
    context = CountingContext()
    stepper = Stepper(context, 1, 10_000, prompt_cache=True, clock=context.clock)
    runs = [RecordedRun(38), RecordedRun(38), RecordedRun(32), RecordedRun(38, delivered=[1])]
    for recorded in runs:
        stepper.submit(recorded.choices)
        await recorded.run.done
    await stepper.stop()
    assert [[delta.cached_tokens for delta in recorded.deltas] for recorded in runs] == [[0, 0], [32, 0], [16, 0], [0]]
    assert [len(rows) for rows in context.steps[-2:]] == [6, 1]


async def test_prefill_tasks_take_turns_with_prompts() -> None:
    """Pieces of a prefill-only task and of prompts take turns, and tasks are processed in order."""
    context = GatedContext()
    stepper = Stepper(context, 4, 10_000, prompt_cache=True, clock=context.clock)
    recorded, tasks = RecordedRun(100), [CountingTask(context, 40), CountingTask(context, 20)]
    stepper.submit(recorded.choices)
    results = [asyncio.create_task(stepper.prefill(task)) for task in tasks]
    await asyncio.sleep(0)
    context.gate.set()
    assert await asyncio.gather(*results) == [40, 20]
    await recorded.run.done
    await stepper.stop()
    assert [task.pieces for task in tasks] == [[16, 16, 8], [16, 4]]
    steps_before = [step for task in tasks for step in task.steps_before]
    assert [after - before for before, after in pairwise(steps_before)] == [1] * 4


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


class BrokenSampler(Sampler):
    """Sampler that fails after `count` tokens."""

    def __init__(self, error: BaseException, count: int) -> None:
        super().__init__(Sampling(temperature=0), 0, [], [], [0], VOCABULARY)
        self._failure = error
        self._left = count

    def draw(self, logits: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None) -> int | None:
        self._left -= 1
        if self._left < 0:
            raise self._failure
        return super().draw(logits, allowed)


class Panic(BaseException):
    """Error that `except Exception` does not catch, like the panic of a library."""


class SelectiveContext(CountingContext):
    """Context that cannot decode the token `refused`."""

    refused = 5

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        if any(token == self.refused for token, *_ in rows):
            raise OSError("cannot decode")
        return super().decode(rows)


@pytest.mark.parametrize("error", [IndexError("index 8 is out of bounds"), Panic("unreachable")], ids=type)
async def test_a_choice_that_cannot_be_drawn_fails_alone(error: BaseException) -> None:
    """If drawing a token of one choice raises anything, only its run fails; later runs are served, too."""
    context = CountingContext()
    stepper = Stepper(context, 4, 10_000, prompt_cache=True, clock=context.clock)
    broken, *others = (RecordedRun(20, token=n, max_tokens=9) for n in range(3))
    broken.choices[0].sampler = BrokenSampler(error, 4)
    stepper.submit([choice for recorded in (broken, *others) for choice in recorded.choices])
    with pytest.raises(EngineFailed, match=str(error)):
        await broken.run.done
    await asyncio.gather(*(recorded.run.done for recorded in others))
    later = RecordedRun(20, token=3, max_tokens=9)
    stepper.submit(later.choices)
    await later.run.done
    await stepper.stop()
    assert [len(recorded.deltas) for recorded in (broken, *others, later)] == [4, 9, 9, 9]


async def test_a_batch_that_cannot_be_decoded_fails_alone() -> None:
    """If a piece of a prompt cannot be decoded, the other prompts and the running answers go on."""
    context = SelectiveContext()
    stepper = Stepper(context, 4, 10_000, prompt_cache=True, clock=context.clock)
    running, refused, other = RecordedRun(1, max_tokens=60), RecordedRun(40, token=5), RecordedRun(40, token=6)
    stepper.submit([choice for recorded in (running, refused, other) for choice in recorded.choices])
    with pytest.raises(EngineFailed, match="cannot decode"):
        await refused.run.done
    await asyncio.gather(running.run.done, other.run.done)
    await stepper.stop()
    assert [len(running.deltas), len(other.deltas)] == [60, 2]
