"""The stepper over a context that only counts: who gets which rows, and what is said meanwhile."""

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
from subnet.engines.stepping.choice import Choice, Run
from subnet.engines.stepping.prefill import share
from subnet.engines.stepping.readings import Reading
from subnet.engines.stepping.stepper import Stepper
from subnet.errors import EngineFailed
from subnet.generation import Delta, Job, Sampling, Start
from subnet.wire.tensors import token_ids

VOCABULARY = 8


class CountingContext(Context):
    """Takes 10 ms a row on a clock of its own, and always makes token 1 the likeliest."""

    def __init__(self) -> None:
        self.steps: list[list[Row]] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        self.steps.append(list(rows))
        self.now += 0.01 * len(rows)
        logits = np.eye(1, VOCABULARY, 1, dtype=np.float32)[0]
        return {sequence: logits for _, _, sequence, wanted in rows if wanted}

    def keep(self, sequence: int, length: int) -> int:
        return length

    def copy(self, source: int, target: int) -> None:
        return None


class Client:
    """One job with `choices` answers of two tokens, after a prompt that is `size` times the same token."""

    def __init__(self, size: int, *, token: int = 0, choices: int = 1, delivered: Sequence[int] = ()) -> None:
        sampling = Sampling(temperature=0, max_tokens=2)
        starts = tuple(Start(number, token_ids(list(delivered))) for number in range(choices))
        job = Job(token_ids([token] * size), sampling, starts)
        self.deltas: list[Delta] = []
        self.run = Run(job, self.deltas.append, frozenset())
        prompt, output = job.prompt.tolist(), list(delivered)
        self.choices = [
            Choice(self.run, start.choice, prompt + output, Sampler(sampling, 0, prompt, output, [0], VOCABULARY), None)
            for start in starts
        ]

    @property
    def signs(self) -> list[Delta]:
        return [delta for delta in self.deltas if not delta.tokens]


class CountingReading(Reading[int]):
    """A text of so many tokens, of which nothing is wanted but how large its pieces were."""

    def __init__(self, context: CountingContext, size: int) -> None:
        self.context = context
        self.left = size
        self.pieces: list[int] = []
        self.after: list[int] = []

    def advance(self, rows: int) -> int | None:
        if self.left < 0:
            raise LookupError("there is no such text")
        self.pieces.append(min(rows, self.left))
        self.after.append(len(self.context.steps))
        self.context.now += 0.01 * self.pieces[-1]
        self.left -= self.pieces[-1]
        return None if self.left else sum(self.pieces)


async def serve(context: CountingContext, clients: Sequence[Client], slots: int = 4) -> None:
    """Submit the clients' work in one piece, and run it to its end."""
    stepper = Stepper(context, slots, 10_000, cache=True, clock=context.clock)
    stepper.submit([choice for client in clients for choice in client.choices])
    await asyncio.gather(*(client.run.done for client in clients))
    await stepper.stop()


def first_draws(context: CountingContext) -> dict[int, int]:
    """For each sequence the step after which it drew its first token."""
    found: dict[int, int] = {}
    for number, rows in enumerate(context.steps, 1):
        for _, _, sequence, wanted in rows:
            if wanted:
                found.setdefault(sequence, number)
    return found


async def test_a_short_prompt_does_not_wait_for_long_ones() -> None:
    """Beside three prompts of 2000 tokens, one of 40 is read within ten steps, and the oldest goes on meanwhile."""
    context = CountingContext()
    long, short = [Client(2000, token=n) for n in range(3)], Client(40, token=3)
    await serve(context, [*long, short])
    drawn = first_draws(context)
    slot, oldest = short.choices[0].slot, long[0].choices[0].slot
    assert drawn[slot] <= 10
    assert sorted(drawn.values())[0] == drawn[slot]
    assert all(any(sequence == oldest for _, _, sequence, _ in rows) for rows in context.steps[: drawn[slot]])


async def test_a_long_prompt_is_read_beside_ever_new_short_ones() -> None:
    """The oldest prompt keeps its part of each step, whatever comes after it."""
    context = CountingContext()
    long, short = Client(200), [Client(40, token=1 + n) for n in range(60)]
    await serve(context, [long, *short], slots=2)
    drawn = first_draws(context)
    assert drawn[long.choices[0].slot] <= 200 // 2 + 1
    assert len(context.steps) > drawn[long.choices[0].slot]


@given(st.integers(4, 32), st.lists(st.integers(2, 200), max_size=8))
def test_rows_are_shared_without_loss(rows: int, unread: list[int]) -> None:
    """No prompt gets more than it lacks, no row is wasted while a prompt lacks one, and the oldest always gets some."""
    shares = share(rows, unread)
    assert all(0 <= given <= lacking for given, lacking in zip(shares, unread, strict=True))
    assert sum(shares) == min(rows, sum(unread))
    assert not unread or shares[0] >= 1


async def test_who_waits_hears_signs_of_life() -> None:
    """At most one a second while a prompt is read or a slot is waited for, none once there are tokens."""
    context = CountingContext()
    reading, waiting = Client(500), Client(30, token=1)
    await serve(context, [reading, waiting], slots=1)
    for client in (reading, waiting):
        assert 4 <= len(client.signs) <= context.now
        assert client.deltas[: len(client.signs)] == [Delta(0, [])] * len(client.signs)
        assert [delta.tokens for delta in client.deltas[len(client.signs) :]] == [[1], [1]]


async def test_choices_of_a_job_read_the_prompt_once() -> None:
    """The others take it over but for its last token, which does not count as cached: no earlier job left it."""
    context = CountingContext()
    client = Client(100, choices=3)
    await serve(context, [client])
    assert sum(position < 100 for rows in context.steps for _, position, _, _ in rows) == 100 + 2
    assert not any(delta.cached_tokens for delta in client.deltas)


async def test_a_resumed_job_does_not_count_its_prompt_as_cached_again() -> None:
    """An earlier job's prompt counts but for its last token; what goes on after delivered tokens counts nothing."""
    context = CountingContext()
    stepper = Stepper(context, 1, 10_000, cache=True, clock=context.clock)
    clients = [Client(38), Client(38), Client(38, delivered=[1])]
    for client in clients:
        stepper.submit(client.choices)
        await client.run.done
    await stepper.stop()
    assert [[delta.cached_tokens for delta in client.deltas] for client in clients] == [[0, 0], [37, 0], [0]]
    assert [len(rows) for rows in context.steps[-2:]] == [1, 1]


async def test_texts_are_read_between_steps() -> None:
    """A text gets a piece after each step, as large as the step left room for, and its turn after the one before."""
    context = CountingContext()
    stepper = Stepper(context, 4, 10_000, cache=True, clock=context.clock)
    client, readings = Client(60), [CountingReading(context, 40), CountingReading(context, 20)]
    stepper.submit(client.choices)
    assert await asyncio.gather(*(stepper.read(reading) for reading in readings)) == [40, 20]
    await client.run.done
    await stepper.stop()
    assert readings[0].after[-1] <= readings[1].after[0]
    for reading in readings:
        pieces = zip(reading.pieces, reading.after, strict=True)
        assert all(piece + len(context.steps[step - 1]) <= 9 for piece, step in pieces)


async def test_a_reading_that_fails_or_is_given_up_holds_nothing_back() -> None:
    """The others are read; what is left when the stepper stops fails."""
    context = CountingContext()
    stepper = Stepper(context, 1, 10_000, cache=True, clock=context.clock)
    endless = asyncio.create_task(stepper.read(CountingReading(context, 10**9)))
    failing = asyncio.create_task(stepper.read(CountingReading(context, -1)))
    good = asyncio.create_task(stepper.read(CountingReading(context, 5)))
    await asyncio.sleep(0)
    endless.cancel()
    with pytest.raises(EngineFailed, match="no such text"):
        await failing
    assert await good == 5
    left = asyncio.create_task(stepper.read(CountingReading(context, 10**9)))
    await asyncio.sleep(0)
    await stepper.stop()
    with pytest.raises(EngineFailed, match="stopped"):
        await left
    with pytest.raises(EngineFailed, match="stopped"):
        await stepper.read(CountingReading(context, 1))
    with pytest.raises(EngineFailed, match="stopped"):
        stepper.submit(Client(1).choices)
