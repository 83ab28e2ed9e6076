"""Tokenizers of nodes, kept on the gateway's disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from adapter.generation.artefact_source import ArtefactSource
from subnet import RemoteManager
from subnet.artefact_cache import ArtefactCache
from subnet.errors import NoNodeAvailable
from subnet.node_info import digest
from subnet.protocols.mock import BYTE_LEVEL, MockProtocol

SHA256 = digest(BYTE_LEVEL)


class CountingNode(MockProtocol):
    """Node that counts how often its artefact is fetched."""

    fetched = 0

    async def rpc_artefact(self, sha256: str) -> bytes:
        self.fetched += 1
        return await super().rpc_artefact(sha256)


async def fetch(folder: Path, node: CountingNode, times: int = 1) -> list[bytes]:
    async with RemoteManager([node]) as manager:
        await manager.ready()
        sources = [ArtefactSource(manager, ArtefactCache(folder)) for _ in range(times)]
        return [await source.get(SHA256) for source in sources]


async def test_an_artefact_is_fetched_once(tmp_path: Path) -> None:
    """A second gateway, or the same after a restart, finds it on the disk."""
    node = CountingNode([1])
    assert await fetch(tmp_path / "new", node, 2) == [BYTE_LEVEL] * 2
    assert node.fetched == 1


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None], ids=["empty", "other bytes", "another artefact"])
async def test_a_damaged_file_is_fetched_again(tmp_path: Path, damage: bytes | None) -> None:
    """Neither a damaged file nor a valid one with another artefact is used; both are replaced."""
    cache, node = ArtefactCache(tmp_path), CountingNode([1])
    cache.put(SHA256, b"another")
    if damage is not None:
        (tmp_path / SHA256).write_bytes(damage)
    assert await fetch(tmp_path, node) == [BYTE_LEVEL]
    assert (node.fetched, cache.get(SHA256)) == (1, BYTE_LEVEL)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a cache, each gateway fetches it."""
    (tmp_path / "file").write_text("")
    node = CountingNode([1])
    assert await fetch(tmp_path / "file" / "folder", node, 2) == [BYTE_LEVEL] * 2
    assert node.fetched == 2


async def test_two_gateways_at_once(tmp_path: Path) -> None:
    """Writers at the same time do not disturb each other."""
    node = CountingNode([1])
    answers = await asyncio.gather(*(fetch(tmp_path, node) for _ in range(8)))
    assert answers == [[BYTE_LEVEL]] * 8
    assert os.listdir(tmp_path) == [SHA256]


async def test_an_artefact_that_no_node_has(tmp_path: Path) -> None:
    """Nothing is kept of a failure."""
    async with RemoteManager([CountingNode([1])]) as manager:
        await manager.ready()
        with pytest.raises(NoNodeAvailable):
            await ArtefactSource(manager, ArtefactCache(tmp_path)).get("0" * 64)
    assert not os.listdir(tmp_path)


async def test_a_disk_that_hangs(tmp_path: Path) -> None:
    """An artefact whose file cannot be read to its end is fetched after the timeout."""
    node = CountingNode([1])
    os.mkfifo(tmp_path / SHA256)
    # With a writer that writes nothing, a reader waits.
    writer = os.open(tmp_path / SHA256, os.O_RDWR)
    try:
        async with RemoteManager([node]) as manager:
            await manager.ready()
            assert await ArtefactSource(manager, ArtefactCache(tmp_path), disk_timeout=0.05).get(SHA256) == BYTE_LEVEL
    finally:
        os.close(writer)
    assert node.fetched == 1
