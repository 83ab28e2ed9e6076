"""The nodes that `adapter up` runs on this machine, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from types import TracebackType

from adapter.process.supervisor import Kept, Report
from subnet.errors import SettingsError
from subnet.node.run import SERVING


class LocalNode(Kept):
    """One node process; what it prints is reported, after its name."""

    def __init__(self, name: str, arguments: Sequence[str], secret: str, report: Report) -> None:
        super().__init__(name, report)
        self.address: str | None = None
        self._arguments = list(arguments)
        self._environ = {**os.environ, "SUBNET_SECRET": secret, "PYTHONUNBUFFERED": "1"}

    async def start(self) -> str:
        """Start it, and wait until it serves; its address. Raises SettingsError with its last words."""
        words = await self._launch()
        if self.address is None:
            raise SettingsError(f"{self.name} did not start: {words or self._ending()}")
        self._keep()
        return self.address

    async def _launch(self) -> str:
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

    async def _follow(self) -> None:
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
