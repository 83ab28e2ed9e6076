"""Tokenizer artefacts from the disk or from nodes."""

from __future__ import annotations

import asyncio

from subnet import RemoteManager
from subnet.artefact_cache import ArtefactCache
from subnet.node_info import digest


class ArtefactSource:
    """Returns artefacts by their digest. Those that a node provided are kept in `cache`, if there is one: they have
    megabytes, and a gateway needs them at each start.
    """

    def __init__(self, remote_manager: RemoteManager, cache: ArtefactCache | None = None) -> None:
        self._manager = remote_manager
        self._cache = cache

    async def get(self, sha256: str) -> bytes:
        """Return an artefact. Raises NoNodeAvailable if it is not in the cache and no node provides it."""
        if self._cache is None:
            return await self._manager.artefact(sha256)
        data = await asyncio.to_thread(self._cache.get, sha256)
        # Another user of the folder could have written anything under this name.
        if data is None or digest(data) != sha256:
            data = await self._manager.artefact(sha256)
            await asyncio.to_thread(self._cache.put, sha256, data)
        return data
