"""Continuous batching: the thread that advances all choices together, one step at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet.engines.stepping.prefill import Pace, share_rows
from subnet.engines.stepping.prefill_queue import PrefillQueue, PrefillTask, to_subnet_error
from subnet.engines.stepping.slots import Slots
from subnet.engines.stepping.stepping_choice import Choice, Event
from subnet.engines.stepping.stepping_context import Context, Row
from subnet.errors import EngineFailed, SubnetError

# Time between two keep-alives of a choice, in seconds.
_KEEP_ALIVE_INTERVAL = 1.0
_STOPPED_MESSAGE = "the engine was stopped"

ResultT = TypeVar("ResultT")


class Stepper:
    """Runs choices and prefill-only tasks on `slot_count` sequences of `context`, in a thread.

    Each step decodes one token of every generating choice and a piece of the pending prompts. The piece is so small
    that a step takes about 80 ms, so a long prompt delays neither other choices nor cancellations. During steps,
    choices without a token yet emit a keep-alive every second. Prefill-only tasks advance between steps.

    `submit` and `prefill` are called on the event loop's thread, which receives all deltas of a step in one callback.
    """

    def __init__(
        self,
        context: Context,
        slot_count: int,
        context_length: int,
        prompt_cache: bool,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._context_length = context_length
        self._slots = Slots(context, slot_count, prompt_cache)
        self._loop = asyncio.get_running_loop()
        self._work_available = threading.Condition()
        self._inbox: list[Choice] = []
        self._stopping = False
        self._prefill_queue = PrefillQueue()
        self._waiting: list[Choice] = []
        self._active: list[Choice] = []
        self._pace = pace or Pace()
        self._step_rows = 0
        self._clock = clock
        self._last_keep_alive = clock()
        self._thread = threading.Thread(target=self._run, name="stepper", daemon=True)
        self._thread.start()

    def submit(self, choices: list[Choice]) -> None:
        """Queue the choices of a run. Raises EngineFailed after `stop`."""
        with self._work_available:
            self._check_running()
            self._inbox += choices
            self._work_available.notify()

    async def prefill(self, task: PrefillTask[ResultT]) -> ResultT:
        """Run `task` and return its result. Cancelling the call stops the task after a piece. Raises EngineFailed."""
        with self._work_available:
            self._check_running()
            result = self._prefill_queue.add(task)
            self._work_available.notify()
        return await result

    async def stop(self) -> None:
        """Stop the thread after the current step. Unfinished runs and tasks fail with EngineFailed."""
        with self._work_available:
            self._stopping = True
            self._work_available.notify()
        await asyncio.to_thread(self._thread.join)
        for choice in [*self._active, *self._waiting, *self._inbox]:
            choice.run.fail(EngineFailed(_STOPPED_MESSAGE))
        self._prefill_queue.fail(EngineFailed(_STOPPED_MESSAGE))

    def _check_running(self) -> None:
        if self._stopping:
            raise EngineFailed(_STOPPED_MESSAGE)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                events = self._step()
            except Exception as error:
                events = self._fail_step(error)
            if events:
                self._loop.call_soon_threadsafe(_deliver, events)
            self._advance_prefill()

    def _wait_for_work(self) -> bool:
        """Block until there is work. Return False if the thread is to stop."""
        with self._work_available:
            self._work_available.wait_for(
                lambda: self._inbox or self._active or self._waiting or self._prefill_queue or self._stopping
            )
            self._waiting += self._inbox
            self._inbox = []
            return not self._stopping

    def _advance_prefill(self) -> None:
        # Only as many rows as the preceding step left unused.
        rows = max(1, self._pace.rows() - self._step_rows)
        started = self._clock()
        if self._prefill_queue.advance(rows):
            self._pace.record(rows, self._clock() - started)

    def _step(self) -> list[Event]:
        self._drop_ended()
        self._admit()
        rows, ready = self._plan()
        self._step_rows = len(rows)
        if not rows:
            return []
        started = self._clock()
        logits = self._context.decode(rows)
        self._pace.record(len(rows), self._clock() - started)
        for choice in self._active:
            self._slots.copy_prompt(choice)
        return self._draw(ready, logits) + self._keep_alives()

    def _drop_ended(self) -> None:
        """Remove choices whose run has been cancelled, has failed or has finished."""
        self._waiting = [choice for choice in self._waiting if not choice.run.ended]
        for choice in [choice for choice in self._active if choice.run.ended]:
            self._retire(choice)

    def _admit(self) -> None:
        while self._waiting and self._slots:
            choice = self._waiting.pop(0)
            self._slots.assign(choice)
            leader = next((other for other in self._active if other.run is choice.run), None)
            if leader is not None and choice.computed < len(choice.run.job.prompt) - 1:
                choice.leader = leader
            self._active.append(choice)

    def _plan(self) -> tuple[list[Row], list[Choice]]:
        """Return the rows of the next step, and the choices that can draw a token after it."""
        prefilling = [choice for choice in self._active if choice.leader is None and choice.pending > 1]
        shares = share_rows(self._pace.rows(), [choice.pending for choice in prefilling])
        row_counts = dict(zip(prefilling, shares, strict=True))
        rows: list[Row] = []
        ready: list[Choice] = []
        for choice in self._active:
            if choice.leader is not None:
                continue
            count = row_counts.get(choice, 1)
            end = choice.computed + count
            is_ready = count == choice.pending
            for position in range(choice.computed, end):
                rows.append((choice.tokens[position], position, choice.slot, is_ready and position == end - 1))
            choice.computed = end
            if is_ready:
                ready.append(choice)
        return rows, ready

    def _draw(self, ready: list[Choice], logits: dict[int, NDArray[np.float32]]) -> list[Event]:
        events: list[Event] = []
        for choice in ready:
            try:
                delta = choice.step(logits[choice.slot], self._context_length)
            except SubnetError as error:
                events.append((choice.run, error))
                self._retire(choice)
                continue
            events.append((choice.run, delta))
            if delta.finish_reason is not None:
                self._retire(choice)
        return events

    def _keep_alives(self) -> list[Event]:
        """Return keep-alives of choices that wait for a slot or whose prompt is being processed, if they are due."""
        if self._clock() - self._last_keep_alive < _KEEP_ALIVE_INTERVAL:
            return []
        self._last_keep_alive = self._clock()
        choices = [*self._active, *self._waiting]
        return [(choice.run, choice.keep_alive()) for choice in choices if choice.awaits_first_token]

    def _retire(self, choice: Choice) -> None:
        self._active.remove(choice)
        self._slots.release(choice)

    def _fail_step(self, error: Exception) -> list[Event]:
        """Fail all runs that were in the failed step, and clear their slots."""
        failure = to_subnet_error(error)
        failed, self._active = self._active, []
        for choice in failed:
            self._slots.reset(choice)
        return [(run, failure) for run in dict.fromkeys(choice.run for choice in failed)]


def _deliver(events: list[Event]) -> None:
    for run, event in events:
        if isinstance(event, SubnetError):
            run.fail(event)
        else:
            run.deliver(event)
