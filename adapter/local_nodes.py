"""The nodes that `adapter up` runs on this machine, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType

from subnet.errors import SettingsError
from subnet.node.run import SERVING

Report = Callable[[str], None]
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A node that ran this long was well: what kills it later is a new trouble. In seconds.
_WELL = 30.0
_GRACE = 5.0


class LocalNode:
    """One node process, started again when it dies; `name` leads its lines in the output.

    The process is in a session of its own, so that Ctrl-C reaches only the gateway, which ends it; and it watches
    its standard input, so that it ends with the gateway however that ends.
    """

    def __init__(self, name: str, arguments: Sequence[str], secret: str, report: Report) -> None:
        self.name = name
        self.address: str | None = None
        self._arguments = list(arguments)
        self._environ = {**os.environ, "SUBNET_SECRET": secret, "PYTHONUNBUFFERED": "1"}
        self._report = report
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start it, and wait until it serves; its address. Raises SettingsError with its last words."""
        words = await self._launch()
        if self.address is None:
            raise SettingsError(f"{self.name} did not start: {words or 'no word of why'}")
        self._watch = asyncio.create_task(self._keep())
        return self.address

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
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

    async def _launch(self) -> str:
        """Run the process until it serves or ends; its last line."""
        command = [sys.executable, "-m", "subnet.cli", "node", "--with-parent", "true", *self._arguments]
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=self._environ, start_new_session=True
        )
        line = ""
        while raw := await self._read_line():
            line = raw
            if (match := SERVING.search(line)) is not None:
                self._settle(match["address"])
                return line
            self._report(f"{self.name}: {line}")
        await self._process.wait()
        return line

    def _settle(self, address: str) -> None:
        if self.address is None:
            self.address = address
            # Started again, it is the same node to everyone.
            self._arguments += ["--port", address.rpartition(":")[2]]

    async def _keep(self) -> None:
        failures = 0
        while True:
            since = monotonic()
            await self._follow()
            failures = 0 if monotonic() - since > _WELL else failures
            pause = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
            failures += 1
            self._report(f"{self.name} ended ({self._ending()}); starting it again in {pause} s")
            await asyncio.sleep(pause)
            words = await self._launch()
            self._report(f"{self.name}: {words}")

    async def _follow(self) -> None:
        """Pass on what the process prints, until it ends."""
        assert self._process is not None
        while line := await self._read_line():
            self._report(f"{self.name}: {line}")
        await self._process.wait()

    async def _read_line(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        while True:
            try:
                raw = await self._process.stdout.readline()
            except ValueError:
                # Longer than the reader's buffer, which is empty again now: nothing that anybody could read.
                continue
            if not raw:
                return ""
            if line := raw.decode(errors="replace").strip():
                return line

    def _ending(self) -> str:
        code = self._process.returncode if self._process is not None else None
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class LocalNodes:
    """Several of them, started together and ended together: `async with LocalNodes(...) as addresses`."""

    def __init__(self, nodes: Sequence[LocalNode]) -> None:
        self._nodes = nodes

    async def __aenter__(self) -> list[str]:
        try:
            return list(await asyncio.gather(*(node.start() for node in self._nodes)))
        except BaseException:
            await self._stop()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self._nodes))
