"""Local nodes of `adapter up`, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from types import TracebackType

from adapter.process.supervisor import Report, SupervisedProcess
from subnet.errors import SettingsError
from subnet.node.run import SERVING


class LocalNode(SupervisedProcess):
    """Node process. Each line of its output is reported with the node's name."""

    def __init__(self, name: str, arguments: Sequence[str], secret: str, report: Report) -> None:
        super().__init__(name, report)
        self.address: str | None = None
        self._arguments = list(arguments)
        self._environ = {**os.environ, "SUBNET_SECRET": secret, "PYTHONUNBUFFERED": "1"}

    async def start(self) -> str:
        """Start the process, and return its address once it serves. Raises SettingsError with the last line of its
        output if it exits before.
        """
        last_line = await self._launch()
        if self.address is None:
            raise SettingsError(f"{self.name} did not start: {last_line or self._exit_reason()}")
        self._start_supervision()
        return self.address

    async def _launch(self) -> str:
        command = [sys.executable, "-m", "subnet.cli", "node", "--with-parent", "true", *self._arguments]
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=self._environ, start_new_session=True
        )
        last_line = ""
        while line := await self._read_line():
            last_line = line
            if (match := SERVING.search(line)) is not None:
                self._set_address(match["address"])
                return line
            self._report(f"{self.name}: {line}")
        await self._process.wait()
        return last_line

    def _set_address(self, address: str) -> None:
        if self.address is None:
            self.address = address
            # A restarted node gets the same port: to the gateway it is the same node.
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
                # The line exceeded the reader's limit, and its buffer was cleared. Such a line is not worth reporting.
                continue
            if not raw:
                return ""
            if line := raw.decode(errors="replace").strip():
                return line


class LocalNodes:
    """Context manager that starts all nodes at once, returns their addresses, and stops them on exit."""

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
