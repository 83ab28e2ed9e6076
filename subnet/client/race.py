"""One attempt, or two that race, for what a ledger lacks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from math import ceil
from time import monotonic
from typing import Any, Generic

from subnet.aio import cancel_and_wait
from subnet.client.attempt.base import Attempt
from subnet.client.deadline import Activity, IdleDeadline
from subnet.client.ledger.base import D, Ledger, Take, enter
from subnet.client.timeouts import Limits
from subnet.errors import NodeError

# Fewer first tokens than this say nothing of how late they usually are.
_LEAST = 20
_WINDOW = 200


class Hedger:
    """Shared by the sessions of a gateway. Off while `quantile` is 0.

    A second node is asked when the first token is later than `quantile` (0.95: than 95 of 100) of recent ones, for
    at most the `share` of requests.
    """

    def __init__(self, quantile: float = 0.0, share: float = 0.1) -> None:
        self._quantile = quantile
        self._share = share
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._hedges: deque[bool] = deque(maxlen=_WINDOW)

    def delay(self) -> float | None:
        """Seconds after which a second node may be asked for a request that starts now; None for never."""
        if not self._quantile:
            return None
        self._hedges.append(False)
        if len(self._recent) < _LEAST:
            return None
        return sorted(self._recent)[ceil(self._quantile * len(self._recent)) - 1]

    def answered(self, seconds: float) -> None:
        """So long after its start a request had its first token."""
        if self._quantile:
            self._recent.append(seconds)

    def spend(self) -> bool:
        """Whether one more second node may be asked; if so, it is counted."""
        if self._hedges.count(True) + 1 > self._share * len(self._hedges):
            return False
        self._hedges.append(True)
        return True


class Round(Generic[D]):
    """What the first attempt to answer gives goes into `ledger` and on to `emit`; the other one is cancelled then.

    `attempt` is the one that answered, until then the first; `answered` says whether one has, and `on_answer` is called
    when it does.
    """

    def __init__(
        self, first: Attempt[D], ledger: Ledger[D], deadline: IdleDeadline, limits: Limits, emit: Take[D]
    ) -> None:
        self.attempt = first
        self.answered = False
        self.on_answer: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._deadline = deadline
        self._emit = emit
        self._within = limits.first_token_within(ledger.size + ledger.delivered)
        self._stall = limits.inter_token_timeout
        self._most = limits.attempt_timeout
        self._alive = max(limits.keep_alive_timeout, self._within, self._stall)
        self._tasks: dict[Attempt[D], asyncio.Task[None]] = {}
        self._flows: list[Flow[D]] = []

    async def run(self, delay: float | None = None, second: Callable[[], Attempt[D] | None] = lambda: None) -> None:
        """Until the node has given all; after `delay` seconds without an answer `second` is asked for another attempt.

        Raises NodeError for a node that failed, was silent for too long or ended too early, and what `emit` raises.
        """
        work = self.attempt.run(self._taker(self.attempt)) if delay is None else self._race(delay, second)
        watched = self._deadline.wait(work, self._within, self._alive, self._flows, next_timeout=self._stall)
        try:
            await (watched if self._most is None else self._bounded(watched, self._most))
        except TimeoutError:
            within = self._stall if self.answered else self._within
            raise self.attempt.late(first=not self.answered, within=within) from None
        finally:
            # The round holds its flows, and they hold it: a cycle otherwise.
            self._flows.clear()
        if not all(choice.finished for choice in self.attempt.choices):
            raise self.attempt.ended()

    async def _bounded(self, watched: Coroutine[Any, Any, None], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds) as whole:
                await watched
        except TimeoutError:
            if whole.expired():
                raise self.attempt.late_in_all(seconds) from None
            raise

    async def _race(self, delay: float, second: Callable[[], Attempt[D] | None]) -> None:
        """An error of one leaves the race to the other; when both fail, that of the first is raised."""
        self._start(self.attempt)
        try:
            await asyncio.wait(self._tasks.values(), timeout=delay)
            if not (self.answered or self._tasks[self.attempt].done()) and (other := second()) is not None:
                self._start(other)
            await asyncio.wait(self._tasks.values())
            self._tasks[self.attempt].result()
        finally:
            # First: who cancels again meanwhile must not leave the other one's lease behind.
            self._let_go()
            await cancel_and_wait(list(self._tasks.values()))

    def _start(self, attempt: Attempt[D]) -> None:
        self._tasks[attempt] = asyncio.create_task(attempt.run(self._taker(attempt)))

    def _taker(self, attempt: Attempt[D]) -> Take[D]:
        flow = Flow(self, attempt, self._ledger, self._emit)
        self._flows.append(flow)
        return flow.take

    def first(self, attempt: Attempt[D]) -> bool:
        """Something of an attempt came; whether it is the one to go on with."""
        if self.answered:
            return False
        self.answered, self.attempt = True, attempt
        attempt.lease.first_token_received()
        self.on_answer()
        self._deadline.restart(self._stall)
        self._let_go()
        return True

    def _let_go(self) -> None:
        for attempt, task in self._tasks.items():
            if attempt is self.attempt:
                continue
            error = task.exception() if task.done() and not task.cancelled() else None
            task.cancel()
            if isinstance(error, NodeError):
                attempt.lease.failed(error)
            else:
                attempt.lease.abandoned()


class Flow(Activity, Generic[D]):
    """The way of what one attempt gives: all of it that every token passes, so that it looks at few places in memory.

    Settled: the attempt was the first to answer, and nothing that it gives repeats what was delivered. From then on a
    delta passes without a look at the round.
    """

    __slots__ = ("_attempt", "_choices", "_emit", "_round", "_settled")

    def __init__(self, round_: Round[D], attempt: Attempt[D], ledger: Ledger[D], emit: Take[D]) -> None:
        super().__init__()
        self._round = round_
        self._attempt = attempt
        self._choices = ledger.choices
        self._emit = emit
        self._settled = False

    def take(self, delta: D) -> None:
        if not delta.tokens and delta.finish_reason is None:
            self.last_keep_alive = monotonic()
            return
        self.last_token = monotonic()
        new = delta if self._settled else self._new(delta)
        if new is not None:
            enter(self._choices, new)
            emit = self._emit
            emit(new)

    def _new(self, delta: D) -> D | None:
        """What of `delta` is to be delivered."""
        round_, attempt = self._round, self._attempt
        if not (round_.answered and round_.attempt is attempt) and not round_.first(attempt):
            return None
        self._settled = not attempt.filters
        return attempt.new(delta) if attempt.filters else delta
