"""Answers that a node's context ends before the requested tokens."""

from __future__ import annotations

import asyncio

from subnet import Limits, MockProtocol, RemoteManager, Sampling, SessionManager
from subnet.errors import NodeLost
from subnet.generation import Delta
from subnet.protocols.base import Protocol
from subnet.protocols.mock import Step

PROMPT = [7, 7, 7, 7]
FULL: list[Step] = [1, 2, 3, Delta(0, [4], finish_reason="length")]


async def deltas_of(*nodes: Protocol, max_tokens: int = 6) -> list[Delta]:
    async with RemoteManager(nodes, probe_interval=0.01) as manager:
        while any(remote.unreachable_reason for remote in manager.remotes):
            await asyncio.sleep(0)
        limits = Limits(queue_timeout=30.0, failover_timeout=30.0)
        async with SessionManager(manager, limits=limits).session("mock") as session:
            return [delta async for delta in session.generate(PROMPT, Sampling(max_tokens=max_tokens))]


async def test_a_node_with_a_longer_context_goes_on() -> None:
    """An answer that fails over to a node with too short a context has all requested tokens in the end."""
    scripts: list[list[Step]] = [[1, 2, NodeLost("gone")], [1, 2, 3, 4, 5, 6]]
    large = MockProtocol(lambda request: scripts.pop(0), peer="large", context_length=100)
    deltas = await deltas_of(MockProtocol(FULL, peer="small", context_length=8), large)
    assert [token for delta in deltas for token in delta.tokens] == [1, 2, 3, 4, 5, 6]
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["length"]
    assert scripts == []


async def test_the_only_context_ends_the_answer() -> None:
    """If no node has a longer context, the answer ends at the context of the one that there is."""
    deltas = await deltas_of(MockProtocol(FULL, peer="small", context_length=8))
    assert [token for delta in deltas for token in delta.tokens] == [1, 2, 3, 4]
    assert deltas[-1].finish_reason == "length"
