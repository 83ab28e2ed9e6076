"""Asks one node, again and again, how it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from subnet.errors import NodeError, NodeTimeout, SubnetError
from subnet.node_info import NodeInfo
from subnet.pool.node import Remote

logger = logging.getLogger(__name__)


class Prober:
    """Keeps what is known of `remote` true, from its making to aclose().

    A node that answers is asked every `interval` seconds; one that says nothing at all within `timeout` seconds is
    away, and asked again after a tenth of the interval, doubled up to the whole. `notify` is called after every answer
    or failure.
    """

    def __init__(
        self,
        remote: Remote,
        *,
        interval: float,
        timeout: float,
        notify: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.remote = remote
        self._interval = interval
        self._timeout = timeout
        self._notify = notify
        self._clock = clock
        self._doubts = 0
        self._doubted = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def doubt(self, fault: str) -> None:
        """A request was failed by the node: it is away until it answers a question that is asked from now on."""
        self._doubts += 1
        self._doubted.set()
        self._went(fault)

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.remote.protocol.aclose()

    async def _run(self) -> None:
        pause = soonest = self._interval / 10
        while True:
            if await self._look():
                await self._wait(self._interval)
                pause = soonest
            elif await self._wait(pause):
                pause = soonest
            else:
                pause = min(self._interval, pause * 2)

    async def _look(self) -> bool:
        doubts = self._doubts
        try:
            info = await self._ask()
        except SubnetError as error:
            self._went(str(error))
            return False
        if doubts != self._doubts:
            # The answer may be older than the failure.
            return False
        if self.remote.fault is not None:
            logger.info("node %s is healthy", self.remote.peer)
        self.remote.came(info, self._clock())
        self._notify()
        return True

    async def _ask(self) -> NodeInfo:
        while True:
            asked = monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._asked()
            except TimeoutError as error:
                # Its answer may wait behind tokens that this process has no time to read.
                if self.remote.fault is not None or self.remote.protocol.heard < asked:
                    message = f"health check of {self.remote.peer} timed out after {self._timeout:g} s"
                    raise NodeTimeout(message) from error

    async def _asked(self) -> NodeInfo:
        try:
            return await self.remote.protocol.rpc_info()
        except SubnetError:
            raise
        except Exception as error:
            # Whatever a protocol does, the node goes on being watched.
            logger.exception("health check of %s failed", self.remote.peer)
            raise NodeError(f"health check of {self.remote.peer} failed: {type(error).__name__}") from error

    def _went(self, fault: str) -> None:
        if fault != self.remote.fault:
            logger.info("node %s is unreachable: %s", self.remote.peer, fault)
        self.remote.went(fault, self._clock())
        self._notify()

    async def _wait(self, seconds: float) -> bool:
        """Until the time is over, or someone doubts the node: then True."""
        try:
            async with asyncio.timeout(seconds):
                await self._doubted.wait()
        except TimeoutError:
            return False
        self._doubted.clear()
        return True
