"""The end of a turn of the event loop."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import lru_cache


class Turn:
    """Puts off what is better done once for all that happens in a turn of `loop`."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: list[Callable[[], None]] = []

    def at_end(self, job: Callable[[], None]) -> None:
        """Call `job` when all that is ready now has been done. What it raises is logged, and keeps no other from it."""
        if not self._jobs:
            self._loop.call_soon(self._run)
        self._jobs.append(job)

    def _run(self) -> None:
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            try:
                job()
            except Exception as error:
                self._loop.call_exception_handler({"message": "error in an end-of-turn callback", "exception": error})


@lru_cache(maxsize=4)
def turn_of(loop: AbstractEventLoop) -> Turn:
    """The same for all connections of a loop."""
    return Turn(loop)
