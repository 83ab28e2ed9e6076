"""A process of ours that is started again when it dies."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Callable
from time import monotonic

Report = Callable[[str], None]
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A process that ran this long was well: what kills it later is a new trouble. In seconds.
_WELL = 30.0
_GRACE = 5.0


class Kept(ABC):
    """`name` leads its lines in the output; `report` gets one when it died and one when it is there again.

    The process is in a session of its own, so that Ctrl-C reaches only its parent, which ends it; and it watches its
    standard input, so that it ends with its parent however that ends.
    """

    def __init__(self, name: str, report: Report) -> None:
        self.name = name
        self._report = report
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @abstractmethod
    async def _launch(self) -> str:
        """Start `_process`, and wait until it serves or has ended; what it said last."""

    @abstractmethod
    async def _follow(self) -> None:
        """Hear what it says, until it has ended."""

    async def stop(self) -> None:
        """End it; kill it when it does not. Safe to call whatever its state."""
        await self._unwatch()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _keep(self) -> None:
        """From now on, start it again when it dies."""
        self._watch = asyncio.create_task(self._again_and_again())

    async def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _again_and_again(self) -> None:
        failures = 0
        while True:
            since = monotonic()
            await self._follow()
            failures = 0 if monotonic() - since > _WELL else failures
            pause = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
            failures += 1
            self._report(f"{self.name} exited ({self._ending()}); restarting it in {pause} s")
            await asyncio.sleep(pause)
            try:
                words = await self._launch()
            except OSError as error:
                words = f"cannot be started: {error.strerror}"
            self._report(f"{self.name}: {words}")

    def _ending(self) -> str:
        code = self._process.returncode if self._process is not None else None
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
