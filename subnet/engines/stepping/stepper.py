"""Continuous batching: the thread that takes all choices forward together, a step at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet.engines.stepping.choice import Choice, Event
from subnet.engines.stepping.context import Context, Row
from subnet.engines.stepping.prefill import Pace, share
from subnet.engines.stepping.readings import Reading, Readings, known
from subnet.engines.stepping.slots import Slots
from subnet.errors import EngineFailed, SubnetError

# Between two signs of life, in seconds.
_SIGN_SECONDS = 1.0
_STOPPED = "the engine was stopped"

ResultT = TypeVar("ResultT")


class Stepper:
    """Each step decodes one token of every choice that is generating and a piece of the prompts that are not yet read,
    so small that a step takes about 80 ms: a long prompt neither stalls the other choices nor a cancellation. While
    steps are made, choices that have nothing to show yet give a sign of life once a second. A text that is only read
    goes a piece further between two steps.

    `submit` and `read` are called on the event loop's thread, which gets what a step made in one callback.
    """

    def __init__(
        self,
        context: Context,
        count: int,
        length: int,
        cache: bool,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._length = length
        self._slots = Slots(context, count, cache)
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Condition()
        self._inbox: list[Choice] = []
        self._stopping = False
        self._readings = Readings()
        self._waiting: list[Choice] = []
        self._active: list[Choice] = []
        self._pace = pace or Pace()
        self._stepped = 0
        self._clock = clock
        self._signed = clock()
        self._thread = threading.Thread(target=self._work, name="stepper", daemon=True)
        self._thread.start()

    def submit(self, choices: list[Choice]) -> None:
        """Raises EngineFailed once it was stopped."""
        with self._wanted:
            self._check_running()
            self._inbox += choices
            self._wanted.notify()

    async def read(self, reading: Reading[ResultT]) -> ResultT:
        """What the reading gives. Raises EngineFailed. Cancelling the call ends it before its next piece."""
        with self._wanted:
            self._check_running()
            result = self._readings.add(reading)
            self._wanted.notify()
        return await result

    async def stop(self) -> None:
        """End the thread after the step it is in; runs that are under way fail with EngineFailed."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        await asyncio.to_thread(self._thread.join)
        for choice in [*self._active, *self._waiting, *self._inbox]:
            choice.run.fail(EngineFailed(_STOPPED))
        self._readings.fail(EngineFailed(_STOPPED))

    def _check_running(self) -> None:
        if self._stopping:
            raise EngineFailed(_STOPPED)

    def _work(self) -> None:
        while self._take_in():
            try:
                events = self._step()
            except Exception as error:
                events = self._break(error)
            if events:
                self._loop.call_soon_threadsafe(_deliver, events)
            self._read_on()

    def _take_in(self) -> bool:
        """Sleep until there is work. False when it is time to stop."""
        with self._wanted:
            self._wanted.wait_for(
                lambda: self._inbox or self._active or self._waiting or self._readings or self._stopping
            )
            self._waiting += self._inbox
            self._inbox = []
            return not self._stopping

    def _read_on(self) -> None:
        """As far as the step before left room for."""
        rows = max(1, self._pace.rows() - self._stepped)
        started = self._clock()
        if self._readings.advance(rows):
            self._pace.took(rows, self._clock() - started)

    def _step(self) -> list[Event]:
        self._sweep()
        self._admit()
        rows, ready = self._plan()
        self._stepped = len(rows)
        if not rows:
            return []
        started = self._clock()
        logits = self._context.decode(rows)
        self._pace.took(len(rows), self._clock() - started)
        for choice in self._active:
            self._slots.follow(choice)
        return self._draw(ready, logits) + self._sign()

    def _sweep(self) -> None:
        """Let go of choices whose run is over: cancelled, failed or finished."""
        self._waiting = [choice for choice in self._waiting if not choice.run.over]
        for choice in [choice for choice in self._active if choice.run.over]:
            self._retire(choice)

    def _admit(self) -> None:
        while self._waiting and self._slots:
            choice = self._waiting.pop(0)
            self._slots.take(choice)
            leader = next((other for other in self._active if other.run is choice.run), None)
            if leader is not None and choice.held < len(choice.run.job.prompt) - 1:
                choice.leader = leader
            self._active.append(choice)

    def _plan(self) -> tuple[list[Row], list[Choice]]:
        """The rows of the next step, and the choices that can draw a token after it."""
        reading = [choice for choice in self._active if choice.leader is None and choice.pending > 1]
        shares = dict(zip(reading, share(self._pace.rows(), [choice.pending for choice in reading]), strict=True))
        rows: list[Row] = []
        ready: list[Choice] = []
        for choice in self._active:
            if choice.leader is not None:
                continue
            count = shares.get(choice, 1)
            last = count == choice.pending
            for at in range(choice.held, choice.held + count):
                rows.append((choice.tokens[at], at, choice.slot, last and at == choice.held + count - 1))
            choice.held += count
            if last:
                ready.append(choice)
        return rows, ready

    def _draw(self, ready: list[Choice], logits: dict[int, NDArray[np.float32]]) -> list[Event]:
        events: list[Event] = []
        for choice in ready:
            try:
                delta = choice.step(logits[choice.slot], self._length)
            except SubnetError as error:
                events.append((choice.run, error))
                self._retire(choice)
                continue
            events.append((choice.run, delta))
            if delta.finish_reason is not None:
                self._retire(choice)
        return events

    def _sign(self) -> list[Event]:
        """Signs of life of those that wait for a slot, or whose prompt is being read, when it is time for them."""
        if self._clock() - self._signed < _SIGN_SECONDS:
            return []
        self._signed = self._clock()
        return [(choice.run, choice.sign_of_life()) for choice in [*self._active, *self._waiting] if choice.fresh]

    def _retire(self, choice: Choice) -> None:
        self._active.remove(choice)
        self._slots.give_back(choice)

    def _break(self, error: Exception) -> list[Event]:
        """A step failed: so do all runs that were in it. The next ones start from empty slots."""
        failure = known(error)
        broken, self._active = self._active, []
        for choice in broken:
            self._slots.wipe(choice)
        return [(run, failure) for run in dict.fromkeys(choice.run for choice in broken)]


def _deliver(events: list[Event]) -> None:
    for run, event in events:
        if isinstance(event, SubnetError):
            run.fail(event)
        else:
            run.deliver(event)
