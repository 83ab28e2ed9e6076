"""Embeddings and logprobs of prompts over nodes that fail, wait, or cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from subnet import RemoteManager, SessionManager
from subnet.client.prompt_scoring import PromptEvaluator
from subnet.errors import EngineFailed, InvalidRequest, NodeBusy, NodeLost, NodeTimeout, NoNodeAvailable
from subnet.node_info import Capabilities
from subnet.protocols.mock import DIMENSIONS, MockProtocol, Pause, Step
from subnet.wire.tensors import token_ids
from tests.fakes import QUICK

ABLE = Capabilities(embeddings=True, prompt_logprobs=True, top_logprobs=5)
TEXT = token_ids([1, 2, 3])


def node(*steps: Step, peer: str = "mock", **options: Any) -> MockProtocol:
    return MockProtocol(steps, peer=peer, capabilities=ABLE, **options)


@asynccontextmanager
async def reading(*nodes: MockProtocol) -> AsyncIterator[tuple[PromptEvaluator, RemoteManager]]:
    """All of `nodes` are here."""
    async with RemoteManager(nodes) as remotes:
        while any(remote.unreachable_reason is not None for remote in remotes.remotes):
            await asyncio.sleep(0)
        yield SessionManager(remotes, limits=QUICK).prompt_evaluator("mock"), remotes


async def test_both() -> None:
    """An embedding for each text, and a logprob for each token but the first."""
    async with reading(node()) as (reader, _):
        assert (await reader.embed([TEXT, TEXT])).shape == (2, DIMENSIONS)
        scores = await reader.score(TEXT, 2)
    assert [(score.logprob, score.top_ids) for score in scores] == [(-1.0, (2, 3)), (-1.0, (3, 4))]


@pytest.mark.parametrize("fault", [NodeLost("gone"), EngineFailed("broken"), Pause()])
async def test_another_node_is_asked(fault: Step) -> None:
    """The failure is told of the node that failed, and nothing is held against the other."""
    async with reading(node(fault, peer="bad"), node(peer="good")) as (reader, remotes):
        for _ in range(2):
            assert np.linalg.norm(await reader.embed([TEXT])) == pytest.approx(1)
        troubles = {remote.peer: bool(remote.last_error) for remote in remotes.remotes}
        assert (troubles, [remote.running for remote in remotes.remotes]) == ({"bad": True, "good": False}, [0, 0])


async def test_attempts_are_bounded() -> None:
    """The last error is raised when they are spent."""
    async with reading(node(Pause(), peer="a"), node(Pause(), peer="b"), node(Pause(), peer="c")) as (reader, remotes):
        with pytest.raises(NodeTimeout):
            await reader.score(TEXT, 0)
        assert sum(bool(remote.last_error) for remote in remotes.remotes) == QUICK.max_attempts


async def test_only_those_that_can() -> None:
    """A node of the same model that cannot is passed by, whoever else fails; if none can, that is the answer."""
    plain = MockProtocol(peer="plain")
    async with reading(plain, node(EngineFailed("once"), peer="able")) as (reader, remotes):
        with pytest.raises(EngineFailed):
            await reader.embed([TEXT])
        assert {remote.peer: remote.last_error for remote in remotes.remotes} == {"plain": "", "able": "once"}
        assert [remote.running for remote in remotes.remotes] == [0, 0]
    async with reading(plain) as (reader, _):
        with pytest.raises(InvalidRequest) as caught:
            await reader.embed([TEXT])
        assert caught.value.param == "model"
        with pytest.raises(InvalidRequest) as caught:
            await reader.score(TEXT, 0)
        assert caught.value.param == "logprobs"
    async with reading(node()) as (reader, _):
        with pytest.raises(InvalidRequest):
            await reader.score(TEXT, ABLE.top_logprobs + 1)


async def test_no_node_at_all() -> None:
    """Who serves nothing of the name is no answer."""
    async with reading(node()) as (_, remotes):
        with pytest.raises(NoNodeAvailable):
            await PromptEvaluator(remotes, "other", QUICK).embed([TEXT])


async def test_waiting_for_room() -> None:
    """More than a node has slots for wait for one another, and for no longer than they have patience."""
    async with reading(node(Pause(0.01), capacity=1)) as (reader, _):
        found = await asyncio.gather(*(reader.embed([TEXT]) for _ in range(3)))
        assert len(found) == 3
    async with reading(MockProtocol(peer="plain"), node(Pause(0.01), peer="able", capacity=1)) as (reader, remotes):
        held = remotes.lease("mock", ["plain"])
        with pytest.raises(NodeBusy):
            await reader.embed([TEXT])
        held.abandoned()
        assert len(await reader.embed([TEXT])) == 1


async def test_cancelling() -> None:
    """Who leaves takes nothing with it."""
    async with reading(node(Pause(None))) as (reader, remotes):
        task = asyncio.create_task(reader.embed([TEXT]))
        while not remotes.remotes[0].running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (remotes.remotes[0].running, remotes.remotes[0].last_error) == (0, "")


async def test_capacity() -> None:
    """Of the healthy nodes of a model together; 1 where there are none."""
    async with reading(node(peer="a", capacity=3), node(peer="b", capacity=4)) as (_, remotes):
        sessions = SessionManager(remotes)
        assert (sessions.capacity("mock"), sessions.capacity("other")) == (7, 1)
