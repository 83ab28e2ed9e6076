"""Continuous batching: the thread that advances all choices together, one step at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet import threads
from subnet.engines.stepping.prefill_queue import PrefillQueue, PrefillTask
from subnet.engines.stepping.slots import Slots
from subnet.engines.stepping.stepping_choice import Choice, Event
from subnet.engines.stepping.stepping_context import Context, Row
from subnet.engines.stepping.turns import Turns
from subnet.errors import EngineFailed, SubnetError, to_subnet_error

# Time between two keep-alives of a choice, in seconds.
_KEEP_ALIVE_INTERVAL = 1.0
_STOPPED_MESSAGE = "the engine was stopped"

ResultT = TypeVar("ResultT")


class Stepper:
    """Runs choices and prefill-only tasks on `slot_count` sequences of `context`, in a thread.

    Each step decodes one batch: a piece of one prompt or prefill-only task, or the next tokens of running choices. What
    is in a batch follows from the choices in it alone, never from the time or from what else is running, so that a
    choice gets the same tokens wherever and whenever it runs. Running choices wait for at most one piece. Between
    steps, choices without a token yet emit a keep-alive every second.

    `submit` and `prefill` are called on the event loop's thread, which receives all deltas of a step in one callback.
    """

    def __init__(
        self,
        context: Context,
        slot_count: int,
        context_length: int,
        prompt_cache: bool,
        *,
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
        self._turns = Turns()
        self._was_task = False
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
        await threads.run("stop", self._thread.join)
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
            except BaseException as error:  # a panic of a library, too: without this thread nothing would be answered
                events = self._fail(list(self._active), error)
            if events:
                self._loop.call_soon_threadsafe(_deliver, events)

    def _wait_for_work(self) -> bool:
        """Block until there is work. Return False if the thread is to stop."""
        with self._work_available:
            self._work_available.wait_for(
                lambda: self._inbox or self._active or self._waiting or self._prefill_queue or self._stopping
            )
            self._waiting += self._inbox
            self._inbox = []
            return not self._stopping

    def _step(self) -> list[Event]:
        self._drop_ended()
        events = self._start_followers()
        self._admit()
        prompts = [choice for choice in self._active if choice.pending_prompt]
        running = [choice for choice in self._active if choice.leader is None and not choice.pending_prompt]
        has_pieces = bool(prompts or self._prefill_queue)
        started = self._clock()
        if self._turns.is_piece_next(pieces=has_pieces, rows=bool(running)):
            events += self._decode_piece(prompts)
            self._turns.record_piece(self._clock() - started)
        elif running:
            events += self._decode_rows(running)
            self._turns.record_rows(self._clock() - started)
        return events + self._keep_alives()

    def _drop_ended(self) -> None:
        """Remove choices whose run has been cancelled, has failed or has finished."""
        self._waiting = [choice for choice in self._waiting if not choice.run.ended]
        for choice in [choice for choice in self._active if choice.run.ended]:
            self._retire(choice)

    def _admit(self) -> None:
        while self._waiting and self._slots:
            choice = self._waiting.pop(0)
            same_run = (other for other in self._active if other.run is choice.run and other.leader is None)
            leader = next(same_run, None)
            self._active.append(choice)
            self._slots.assign(choice)
            choice.leader = leader

    def _start_followers(self) -> list[Event]:
        """Copy prompts that leaders have decoded, and draw the first tokens of the choices that got one.

        Called before a free slot, which may be that of a leader, is assigned again.
        """
        events: list[Event] = []
        for choice in list(self._active):
            leader, logits = choice.leader, choice.run.prompt_logits
            if leader is None or logits is None:
                continue
            try:
                self._slots.copy_prompt(choice, leader)
            except Exception as error:
                events += self._fail([choice], error)
                continue
            if not choice.pending:
                events += self._draw([choice], {choice.slot: logits})
        return events

    def _decode_piece(self, prompts: list[Choice]) -> list[Event]:
        """Decode a piece of one of the prompts, or of the first prefill-only task; these take turns."""
        self._was_task = bool(self._prefill_queue) and not (prompts and self._was_task)
        if self._was_task:
            self._prefill_queue.advance()
            return []
        choice = prompts[self._turns.pick_prompt([choice.pending_prompt for choice in prompts])]
        piece_length = self._context.piece_length
        end = min((choice.computed // piece_length + 1) * piece_length, choice.computed + choice.pending_prompt)
        try:
            logits = self._decode([choice], end - choice.computed)
        except Exception as error:
            return self._fail([choice], error)
        if choice.pending_prompt:
            return []
        if len(choice.run.job.starts) > 1:
            choice.run.prompt_logits = logits[choice.slot].copy()
        return [] if choice.pending else self._draw([choice], logits)

    def _decode_rows(self, running: list[Choice]) -> list[Event]:
        """Decode the next tokens of one choice, if it has several, or the next token each of some choices."""
        first = running[0]
        if first.pending > 1:
            batch, count = [first], min(first.pending, self._context.max_rows)
        else:
            batch = [choice for choice in running if choice.pending == 1][: self._context.max_sequences]
            count = 1
        # The others are first in the next step.
        self._active = [choice for choice in self._active if choice not in batch] + batch
        try:
            logits = self._decode(batch, count)
        except Exception as error:
            return self._fail(batch, error)
        return self._draw([choice for choice in batch if not choice.pending], logits)

    def _decode(self, batch: list[Choice], count: int) -> dict[int, NDArray[np.float32]]:
        """Decode the next `count` tokens of each choice. Return the logits after them, by slot."""
        rows: list[Row] = []
        for choice in batch:
            last = choice.computed + count - 1
            positions = range(choice.computed, last + 1)
            rows += ((choice.tokens[position], position, choice.slot, position == last) for position in positions)
            choice.computed += count
        return self._context.decode(rows)

    def _draw(self, ready: list[Choice], logits: dict[int, NDArray[np.float32]]) -> list[Event]:
        events: list[Event] = []
        for choice in ready:
            try:
                delta = choice.step(logits[choice.slot], self._context_length)
            except BaseException as error:  # a panic of a library, too: the other choices go on
                events.append((choice.run, to_subnet_error(error)))
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

    def _fail(self, failed: list[Choice], error: BaseException) -> list[Event]:
        """Fail the runs of the choices whose tokens could not be decoded, and clear their slots. All others go on."""
        failure = to_subnet_error(error)
        for choice in failed:
            self._active.remove(choice)
            self._slots.reset(choice)
        return [(run, failure) for run in dict.fromkeys(choice.run for choice in failed)]


def _deliver(events: list[Event]) -> None:
    for run, event in events:
        if isinstance(event, SubnetError):
            run.fail(event)
        else:
            run.deliver(event)
