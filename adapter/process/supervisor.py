"""Child processes that are restarted when they exit."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Callable
from time import monotonic

Report = Callable[[str], None]
"""Prints a line for the person who runs the command."""

# Seconds before each restart; the last value repeats.
_RESTART_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A process that ran this long starts over at the first delay. In seconds.
_STABLE_AFTER = 30.0
# Seconds between SIGTERM and SIGKILL.
_TERMINATE_TIMEOUT = 5.0


class SupervisedProcess(ABC):
    """Process that is restarted when it exits. `report` gets a line, beginning with `name`, for each exit and restart.

    The process runs in a session of its own, so that Ctrl-C reaches only the parent, which then stops it. It watches
    its standard input, so that it exits when the parent does, however that happens.
    """

    def __init__(self, name: str, report: Report) -> None:
        self.name = name
        self._report = report
        self._process: Process | None = None
        self._supervision: asyncio.Task[None] | None = None

    @abstractmethod
    async def _launch(self) -> str:
        """Start `_process` and wait until it serves or has exited. Returns a message about the result."""

    @abstractmethod
    async def _follow(self) -> None:
        """Process the output of `_process` until it exits."""

    async def stop(self) -> None:
        """Terminate the process, and kill it if it does not exit in time. Safe to call in any state."""
        await self._stop_supervision()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_TERMINATE_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _start_supervision(self) -> None:
        """Restart the process from now on whenever it exits."""
        self._supervision = asyncio.create_task(self._restart_forever())

    async def _stop_supervision(self) -> None:
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.gather(self._supervision, return_exceptions=True)

    async def _restart_forever(self) -> None:
        failures = 0
        while True:
            since = monotonic()
            await self._follow()
            failures = 0 if monotonic() - since > _STABLE_AFTER else failures
            delay = _RESTART_DELAYS[min(failures, len(_RESTART_DELAYS) - 1)]
            failures += 1
            self._report(f"{self.name} exited ({self._exit_reason()}); restarting it in {delay} s")
            await asyncio.sleep(delay)
            try:
                result = await self._launch()
            except OSError as error:
                result = f"cannot be started: {error.strerror}"
            self._report(f"{self.name}: {result}")

    def _exit_reason(self) -> str:
        code = self._process.returncode if self._process is not None else None
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
