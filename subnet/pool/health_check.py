"""Periodic health checks of one node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from subnet.errors import NodeError, NodeTimeout, SubnetError
from subnet.node_info import NodeInfo
from subnet.pool.node import RemoteNode

logger = logging.getLogger(__name__)


class HealthChecker:
    """Background task that checks `remote` and marks it healthy or unreachable, until aclose().

    A healthy node is checked every `interval` seconds. A node that does not respond within `timeout` seconds, and
    sends nothing else meanwhile, is unreachable; it is checked again after a tenth of the interval, doubled after each
    failure up to the whole interval. `on_change` is called after every response or failure.
    """

    def __init__(
        self,
        remote: RemoteNode,
        *,
        interval: float,
        timeout: float,
        on_change: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.remote = remote
        self._interval = interval
        self._timeout = timeout
        self._on_change = on_change
        self._clock = clock
        self._rechecks = 0
        self._recheck_requested = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def recheck(self, reason: str) -> None:
        """Mark the node unreachable because a request failed, until it responds to a check that starts after this."""
        self._rechecks += 1
        self._recheck_requested.set()
        self._mark_unreachable(reason)

    def check_soon(self) -> None:
        """Do the next check now. The node stays healthy until it fails."""
        self._recheck_requested.set()

    async def aclose(self) -> None:
        """Stop the checks and close the node's protocol."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.remote.protocol.aclose()

    async def _run(self) -> None:
        delay = min_delay = self._interval / 10
        while True:
            if await self._check():
                await self._wait_for_recheck(self._interval)
                delay = min_delay
            elif await self._wait_for_recheck(delay):
                delay = min_delay
            else:
                delay = min(self._interval, delay * 2)

    async def _check(self) -> bool:
        rechecks = self._rechecks
        try:
            info = await self._request_info_in_time()
        except SubnetError as error:
            self._mark_unreachable(str(error))
            return False
        if rechecks != self._rechecks:
            # The node may have responded before the failure.
            return False
        if self.remote.unreachable_reason is not None:
            logger.info("node %s is healthy", self.remote.peer)
        self.remote.mark_healthy(info, self._clock())
        self._on_change()
        return True

    async def _request_info_in_time(self) -> NodeInfo:
        while True:
            started = monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._request_info()
            except TimeoutError as error:
                # The response may be queued behind tokens that this process has not had time to read.
                if self.remote.unreachable_reason is not None or self.remote.protocol.last_received < started:
                    message = f"health check of {self.remote.peer} timed out after {self._timeout:g} s"
                    raise NodeTimeout(message) from error

    async def _request_info(self) -> NodeInfo:
        try:
            return await self.remote.protocol.rpc_info()
        except SubnetError:
            raise
        except Exception as error:
            # A bug in a protocol must not end the health checks of its node.
            logger.exception("health check of %s failed", self.remote.peer)
            raise NodeError(f"health check of {self.remote.peer} failed: {type(error).__name__}") from error

    def _mark_unreachable(self, reason: str) -> None:
        if reason != self.remote.unreachable_reason:
            logger.info("node %s is unreachable: %s", self.remote.peer, reason)
        self.remote.mark_unreachable(reason, self._clock())
        self._on_change()

    async def _wait_for_recheck(self, seconds: float) -> bool:
        """Wait up to this many seconds; return whether a recheck was requested."""
        try:
            async with asyncio.timeout(seconds):
                await self._recheck_requested.wait()
        except TimeoutError:
            return False
        self._recheck_requested.clear()
        return True
