"""Race between an attempt and its hedge: a second attempt on another node if the first token is late."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from math import ceil
from time import monotonic
from typing import Any, Generic

from subnet.aio import Sink
from subnet.chat import ChatText
from subnet.client.attempt.base import Attempt
from subnet.client.deadline import Activity, IdleDeadline
from subnet.client.ledger.base import D, Ledger, record_delta
from subnet.client.timeouts import Limits
from subnet.errors import NodeError, RequestError
from subnet.pool.deployment import Deployment
from subnet.pool.lease import Lease

# Minimum number of first tokens to compute a quantile of, and the number of requests to compute the share of.
_MIN_SAMPLES = 20
_WINDOW = 200


class Hedger:
    """Decides when to send a request to a second node. Shared by all sessions of a gateway; off while `quantile` is 0.

    A request is hedged when its first token takes longer than the `quantile` of recent ones on the same deployment
    (0.95: longer than 95 %). At most `share` of the requests are hedged.
    """

    def __init__(self, quantile: float = 0.0, share: float = 0.1) -> None:
        self._quantile = quantile
        self._share = share
        self._hedges: deque[bool] = deque(maxlen=_WINDOW)

    def delay(self, deployment: Deployment) -> float | None:
        """Count a request to `deployment` and return the seconds after which to hedge it; None for never."""
        if not self._quantile:
            return None
        self._hedges.append(False)
        recent = deployment.first_token_times
        if len(recent) < _MIN_SAMPLES:
            return None
        return sorted(recent)[ceil(self._quantile * len(recent)) - 1]

    def record_first_token(self, deployment: Deployment, seconds: float) -> None:
        """Record that a request to `deployment` had its first token after that time, possibly from its hedge."""
        if self._quantile:
            deployment.first_token_times.append(seconds)

    def try_hedge(self) -> bool:
        """Count one more hedged request and return True, or return False if that would exceed the share."""
        if self._hedges.count(True) + 1 > self._share * len(self._hedges):
            return False
        self._hedges.append(True)
        return True


class Race(Generic[D]):
    """Race of one or two attempts for the rest of a generation.

    The first attempt that delivers a token wins: its deltas are recorded in `ledger` and passed to `emit`, and the
    other attempt is cancelled. `attempt` is the winner, or the first attempt until `decided` is True. `on_first_token`
    is called when the race is decided. `refused` is the lease of the other attempt if its node refused the request.
    """

    def __init__(
        self, first: Attempt[D], ledger: Ledger[D], deadline: IdleDeadline, limits: Limits, emit: Sink[D]
    ) -> None:
        self.attempt = first
        self.decided = False
        self.refused: Lease | None = None
        self.on_first_token: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._deadline = deadline
        self._emit = emit
        self._first_token_timeout = limits.first_token_timeout_for(ledger.prompt_size + ledger.delivered_tokens)
        self._inter_token_timeout = limits.inter_token_timeout
        self._attempt_timeout = limits.attempt_timeout
        self._keep_alive_timeout = max(limits.keep_alive_timeout, self._first_token_timeout, self._inter_token_timeout)
        self._tasks: dict[Attempt[D], asyncio.Task[None]] = {}
        self._receivers: list[AttemptReceiver[D]] = []

    def notify(self, on_delivery: Callable[[], None]) -> None:
        """Call `on_delivery` before each delta that is passed on. To be called before `run`."""
        emit = self._emit

        def deliver(delta: D) -> None:
            on_delivery()
            emit(delta)

        self._emit = deliver

    async def run(self, delay: float | None = None, hedge: Callable[[], Attempt[D] | None] = lambda: None) -> None:
        """Run until all choices of the winner are finished.

        If there is no token after `delay` seconds (None: never), `hedge` is called and may return a second attempt.
        Raises NodeError if a node fails, times out or ends the stream early, and any error raised by `emit`.
        """
        work = (
            self.attempt.run(self._create_receiver(self.attempt)) if delay is None else self._run_hedged(delay, hedge)
        )
        watched = self._deadline.wait(
            work,
            self._first_token_timeout,
            self._keep_alive_timeout,
            self._receivers,
            next_timeout=self._inter_token_timeout,
        )
        try:
            await (watched if self._attempt_timeout is None else self._run_bounded(watched, self._attempt_timeout))
        except TimeoutError:
            seconds = self._inter_token_timeout if self.decided else self._first_token_timeout
            raise self.attempt.idle_timeout_error(seconds, first=not self.decided) from None
        finally:
            # The receivers hold a reference to the race: this breaks the cycle.
            self._receivers.clear()
        if not all(choice.finished for choice in self.attempt.choices):
            raise self.attempt.incomplete_error()

    async def _run_bounded(self, watched: Coroutine[Any, Any, None], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds) as total:
                await watched
        except TimeoutError:
            if total.expired():
                raise self.attempt.attempt_timeout_error(seconds) from None
            raise

    async def _run_hedged(self, delay: float, hedge: Callable[[], Attempt[D] | None]) -> None:
        """Run both attempts. If one fails, the other continues; if both fail, the first one's error is raised.

        Not a task group: that would cancel the other attempt when one fails.
        """
        self._start(self.attempt)
        try:
            await asyncio.wait(self._tasks.values(), timeout=delay)
            if not (self.decided or self._tasks[self.attempt].done()) and (second := hedge()) is not None:
                self._start(second)
            await asyncio.wait(self._tasks.values())
            self._tasks[self.attempt].result()
        finally:
            # Before the wait: another cancellation during it must not leave the loser's lease active.
            self._cancel_loser()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, attempt: Attempt[D]) -> None:
        self._tasks[attempt] = asyncio.create_task(attempt.run(self._create_receiver(attempt)))

    def _create_receiver(self, attempt: Attempt[D]) -> Sink[D]:
        receiver = AttemptReceiver(self, attempt, self._ledger, self._emit)
        self._receivers.append(receiver)
        return receiver.receive

    def claim(self, attempt: Attempt[D]) -> bool:
        """Decide the race in favour of an attempt that received a token; return False if it was already decided."""
        if self.decided:
            return False
        self.decided, self.attempt = True, attempt
        attempt.lease.first_token_received()
        self.on_first_token()
        self._deadline.restart(self._inter_token_timeout)
        self._cancel_loser()
        return True

    def _cancel_loser(self) -> None:
        for attempt, task in self._tasks.items():
            if attempt is self.attempt:
                continue
            error = task.exception() if task.done() and not task.cancelled() else None
            task.cancel()
            if isinstance(error, NodeError):
                attempt.lease.failed(error)
            else:
                attempt.lease.abandoned()
                self.refused = attempt.lease if isinstance(error, RequestError) else None


class AttemptReceiver(Activity, Generic[D]):
    """Receiver of one attempt's deltas. Every token passes through it, so it keeps all it needs in its own slots.

    `_pass_through` is set once the attempt has won the race and no delta of it must be filtered: from then on, deltas
    are passed on without consulting the race.
    """

    __slots__ = ("_attempt", "_choices", "_emit", "_pass_through", "_race")

    def __init__(self, race: Race[D], attempt: Attempt[D], ledger: Ledger[D], emit: Sink[D]) -> None:
        super().__init__()
        self._race = race
        self._attempt = attempt
        self._choices = ledger.choices
        self._emit = emit
        self._pass_through = False

    def receive(self, delta: D) -> None:
        if type(delta) is not ChatText and not delta.tokens and delta.finish_reason is None:
            self.last_keep_alive = monotonic()
            return
        self.last_token = monotonic()
        new = delta if self._pass_through else self._filter(delta)
        if new is not None:
            record_delta(self._choices, new)
            emit = self._emit
            emit(new)

    def _filter(self, delta: D) -> D | None:
        """Return the part of `delta` to deliver; None for nothing."""
        race, attempt = self._race, self._attempt
        if not (race.decided and race.attempt is attempt) and not race.claim(attempt):
            return None
        self._pass_through = not (attempt.is_replay or attempt.may_end_early)
        return delta if self._pass_through else attempt.skip_delivered(delta)
