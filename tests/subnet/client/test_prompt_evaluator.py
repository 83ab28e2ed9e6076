"""Embeddings and prompt logprobs on nodes that fail, are full, or do not support them."""

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
from subnet.tensors import token_ids
from tests.fakes import QUICK

SUPPORTED = Capabilities(embeddings=True, prompt_logprobs=True, top_logprobs=5)
TEXT = token_ids([1, 2, 3])


def node(*steps: Step, peer: str = "mock", **options: Any) -> MockProtocol:
    return MockProtocol(steps, peer=peer, capabilities=SUPPORTED, **options)


@asynccontextmanager
async def evaluating(*nodes: MockProtocol) -> AsyncIterator[tuple[PromptEvaluator, RemoteManager]]:
    """Yield an evaluator once all of `nodes` are healthy."""
    async with RemoteManager(nodes) as remotes:
        while any(remote.unreachable_reason is not None for remote in remotes.remotes):
            await asyncio.sleep(0)
        yield SessionManager(remotes, limits=QUICK).prompt_evaluator("mock"), remotes


async def test_embeddings_and_prompt_logprobs() -> None:
    """embed returns one embedding per text, and score one logprob for each token but the first."""
    async with evaluating(node()) as (evaluator, _):
        assert (await evaluator.embed([TEXT, TEXT])).shape == (2, DIMENSIONS)
        scores = await evaluator.score(TEXT, 2)
    assert [(score.logprob, score.top_ids) for score in scores] == [(-1.0, (2, 3)), (-1.0, (3, 4))]


@pytest.mark.parametrize("fault", [NodeLost("gone"), EngineFailed("broken"), Pause()])
async def test_a_failed_node_is_replaced(fault: Step) -> None:
    """A failed request is retried on another node, and the failure is recorded for the failed node only."""
    async with evaluating(node(fault, peer="bad"), node(peer="good")) as (evaluator, remotes):
        for _ in range(2):
            assert np.linalg.norm(await evaluator.embed([TEXT])) == pytest.approx(1)
        failed = {remote.peer: bool(remote.last_error) for remote in remotes.remotes}
        assert (failed, [remote.running for remote in remotes.remotes]) == ({"bad": True, "good": False}, [0, 0])


async def test_attempts_are_bounded() -> None:
    """A request that fails on every node makes max_attempts attempts and raises the last error."""
    async with evaluating(node(Pause(), peer="a"), node(Pause(), peer="b"), node(Pause(), peer="c")) as (
        evaluator,
        remotes,
    ):
        with pytest.raises(NodeTimeout):
            await evaluator.score(TEXT, 0)
        assert sum(bool(remote.last_error) for remote in remotes.remotes) == QUICK.max_attempts


async def test_only_nodes_that_support_the_request_are_used() -> None:
    """A node without the capability is never used, even after failures; InvalidRequest if no node has it."""
    plain = MockProtocol(peer="plain")
    async with evaluating(plain, node(EngineFailed("once"), peer="able")) as (evaluator, remotes):
        with pytest.raises(EngineFailed):
            await evaluator.embed([TEXT])
        assert {remote.peer: remote.last_error for remote in remotes.remotes} == {"plain": "", "able": "once"}
        assert [remote.running for remote in remotes.remotes] == [0, 0]
    async with evaluating(plain) as (evaluator, _):
        with pytest.raises(InvalidRequest) as caught:
            await evaluator.embed([TEXT])
        assert caught.value.param == "model"
        with pytest.raises(InvalidRequest) as caught:
            await evaluator.score(TEXT, 0)
        assert caught.value.param == "logprobs"
    async with evaluating(node()) as (evaluator, _):
        with pytest.raises(InvalidRequest):
            await evaluator.score(TEXT, SUPPORTED.top_logprobs + 1)


async def test_an_unknown_model_raises_no_node_available() -> None:
    """A request for a model that no node serves raises NoNodeAvailable."""
    async with evaluating(node()) as (_, remotes):
        with pytest.raises(NoNodeAvailable):
            await PromptEvaluator(remotes, "other", QUICK).embed([TEXT])


async def test_requests_wait_for_capacity() -> None:
    """Requests beyond a node's capacity wait for a free slot, no longer than queue_timeout."""
    async with evaluating(node(Pause(0.01), capacity=1)) as (evaluator, _):
        embeddings = await asyncio.gather(*(evaluator.embed([TEXT]) for _ in range(3)))
        assert len(embeddings) == 3
    async with evaluating(MockProtocol(peer="plain"), node(Pause(0.01), peer="able", capacity=1)) as (
        evaluator,
        remotes,
    ):
        lease = remotes.lease("mock", ["plain"])
        with pytest.raises(NodeBusy):
            await evaluator.embed([TEXT])
        lease.abandoned()
        assert len(await evaluator.embed([TEXT])) == 1


async def test_cancelling_releases_the_lease() -> None:
    """Cancelling a request releases its lease and does not count as a failure of the node."""
    async with evaluating(node(Pause(None))) as (evaluator, remotes):
        task = asyncio.create_task(evaluator.embed([TEXT]))
        while not remotes.remotes[0].running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (remotes.remotes[0].running, remotes.remotes[0].last_error) == (0, "")


async def test_capacity() -> None:
    """capacity is the sum over the healthy nodes of a model, and 1 for a model that no node serves."""
    async with evaluating(node(peer="a", capacity=3), node(peer="b", capacity=4)) as (_, remotes):
        sessions = SessionManager(remotes)
        assert (sessions.capacity("mock"), sessions.capacity("other")) == (7, 1)


async def test_nodes_whose_context_is_long_enough() -> None:
    """A text goes to nodes with a long enough context, every time."""
    short, long = node(peer="short", context_length=3), node(peer="long", context_length=300)
    async with evaluating(short, long) as (evaluator, _):
        for _ in range(4):
            await evaluator.embed([token_ids([1] * 100)])
        assert set(evaluator.peers) == {"long"}
        await evaluator.embed([token_ids([1] * 3)])


async def test_nodes_with_the_tokenizer_of_the_text() -> None:
    """A text goes to nodes with the card for which it was tokenized."""
    first, second = node(peer="a", chat_template="a"), node(peer="b", chat_template="b")
    async with evaluating(first, second) as (_, remotes):
        identity = remotes.remotes[1].deployment("mock").identity
        evaluator = SessionManager(remotes).prompt_evaluator("mock", identity=identity)
        for _ in range(3):
            await evaluator.embed([TEXT])
        assert set(evaluator.peers) == {"b"}
