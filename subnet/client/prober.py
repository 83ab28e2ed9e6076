"""Asks one node, again and again, how it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from subnet.client.remote import Remote
from subnet.errors import SubnetError

logger = logging.getLogger(__name__)


class Prober:
    """Keeps `remote.info` and `remote.fault` true, from its making to aclose().

    A node that answers is asked every `interval` seconds; one that does not, after a tenth of it, doubling up to
    `interval`. `notify` is called whenever the node comes or goes.
    """

    def __init__(self, remote: Remote, interval: float, notify: Callable[[], None]) -> None:
        self.remote = remote
        self._notify = notify
        self._interval = interval
        self._sooner = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def look_now(self) -> None:
        self._notify()
        self._sooner.set()

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.remote.protocol.aclose()

    async def _run(self) -> None:
        pause = self._interval / 10
        while True:
            healthy = await self._look()
            pause = self._interval if healthy else min(self._interval, pause * 2)
            await self._wait(pause)
            if self._sooner.is_set():
                self._sooner.clear()
                pause = self._interval / 10

    async def _look(self) -> bool:
        remote = self.remote
        try:
            remote.info = await remote.protocol.rpc_info()
            fault = None
        except SubnetError as error:
            fault = str(error)
        if (fault is None) != (remote.fault is None):
            logger.info("node %s is %s", remote.peer, "here" if fault is None else f"away: {fault}")
            remote.fault = fault
            self._notify()
        remote.fault = fault
        return fault is None

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._sooner.wait()
        except TimeoutError:
            return
