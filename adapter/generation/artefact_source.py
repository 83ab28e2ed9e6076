"""Tokenizer artefacts from the disk or from nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from subnet import RemoteManager
from subnet.artefact_cache import ArtefactCache
from subnet.node_info import digest
from subnet.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_threads = Threads(2, "artefact-cache")


class ArtefactSource:
    """Returns artefacts by their digest. Those that a node provided are kept in `cache`, if there is one: they have
    megabytes, and a gateway needs them at each start. A disk that takes longer than `disk_timeout` seconds is not
    waited for, as nodes can provide them.
    """

    def __init__(
        self, remote_manager: RemoteManager, cache: ArtefactCache | None = None, *, disk_timeout: float = 5.0
    ) -> None:
        self._manager = remote_manager
        self._cache = cache
        self._disk_timeout = disk_timeout

    async def get(self, sha256: str) -> bytes:
        """Return an artefact. Raises NoNodeAvailable if it is not in the cache and no node provides it."""
        if self._cache is None:
            return await self._manager.artefact(sha256)
        data = await self._from_disk(self._cache.get, sha256)
        # Another user of the folder could have written anything under this name.
        if data is None or digest(data) != sha256:
            data = await self._manager.artefact(sha256)
            await self._from_disk(self._cache.put, sha256, data)
        return data

    async def _from_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return the result of work with the disk, or None if it takes too long."""
        try:
            async with asyncio.timeout(self._disk_timeout):
                return await _threads.run(work, *args, **kwargs)
        except TimeoutError:
            logger.warning("reading the tokenizer cache timed out after %g s", self._disk_timeout)
            return None
