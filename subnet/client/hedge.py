"""Asking a second node when the first is later than usual."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from math import ceil

from subnet.generation import Delta

Stream = AsyncGenerator[Delta, None]

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
        self._hedges.append(False)
        if not self._quantile or len(self._recent) < _LEAST:
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


async def first_delta(stream: Stream, silence: float) -> Delta:
    """The first that says anything; signs of life are passed over. Raises TimeoutError after `silence` seconds
    without either, and EndedEarly.
    """
    while True:
        try:
            async with asyncio.timeout(silence):
                delta = await anext(stream)
        except StopAsyncIteration:
            raise EndedEarly from None
        if delta.tokens or delta.finish_reason is not None:
            return delta


class EndedEarly(Exception):
    """A stream ended without a word."""


async def race(one: Stream, delay: float, second: Callable[[], Stream | None], silence: float) -> tuple[Stream, Delta]:
    """The stream that answers first, and its first delta; the other one is closed before this returns.

    `second` is asked for another stream after `delay` seconds. An error of one leaves the race to the other; when
    both fail, that of the first is raised.
    """
    streams = [one]
    tasks = [asyncio.create_task(first_delta(one, silence))]
    winner: int | None = None
    try:
        await asyncio.wait(tasks, timeout=delay)
        if not tasks[0].done() and (other := second()) is not None:
            streams.append(other)
            tasks.append(asyncio.create_task(first_delta(other, silence)))
        pending = {task for task in tasks if not task.done()}
        while (winner := _winner(tasks)) is None and pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        return streams[winner or 0], tasks[winner or 0].result()
    finally:
        for number, (task, stream) in enumerate(zip(tasks, streams, strict=True)):
            if number != winner:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await stream.aclose()


def _winner(tasks: list[asyncio.Task[Delta]]) -> int | None:
    return next((n for n, task in enumerate(tasks) if task.done() and task.exception() is None), None)
