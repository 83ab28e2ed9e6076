"""Health of individual models: what fails for one model of a node says nothing about its others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from subnet import MockProtocol, RemoteManager
from subnet.chat import Endpoint
from subnet.errors import (
    EndpointMissing,
    EngineFailed,
    FirstTokenTimeout,
    NodeBusy,
    NodeError,
    NodeLost,
    NoNodeAvailable,
    RateLimited,
    ResponseLost,
    WireError,
)
from subnet.node_info import NodeInfo, Placement
from subnet.pool.policies.base import RoutingHint
from subnet.pool.requirements import Requirements
from subnet.tensors import token_ids
from tests.subnet.pool.test_remote_manager import Clock, until

CHAT = Requirements("chat")


class Provider(MockProtocol):
    """A node of the chat lane that serves the models "bad" and "good"."""

    def __init__(self, peer: str = "a", placement: Placement | None = None) -> None:
        super().__init__(peer=peer)
        self._placement = placement or Placement()

    def placement(self, model: str) -> Placement:
        return self._placement

    async def rpc_info(self) -> NodeInfo:
        info = await super().rpc_info()
        cards = [msgspec.structs.replace(info.cards[0], id=name, lane="chat") for name in ("bad", "good")]
        return msgspec.structs.replace(info, cards=tuple(cards))


@asynccontextmanager
async def managing(*nodes: MockProtocol, clock: Clock | None = None) -> AsyncIterator[RemoteManager]:
    async with RemoteManager(nodes, probe_interval=60.0, clock=clock or Clock()) as manager:
        await until(lambda: all(remote.info is not None for remote in manager.remotes))
        yield manager


def fail(manager: RemoteManager, error: NodeError, *, prompt: int = 0, model: str = "bad") -> None:
    """Report one request for `model` that fails."""
    hint = RoutingHint(token_ids([1, prompt]))
    manager.lease(model, hint=hint, requirements=CHAT).failed(error)


@pytest.mark.parametrize(
    "error", [EngineFailed("x"), FirstTokenTimeout("x"), ResponseLost("x"), WireError("x"), NodeError("x")]
)
async def test_a_failing_model_does_not_affect_others(error: NodeError) -> None:
    """Failures of different requests keep further ones away from that model only, and the node stays reachable."""
    async with managing(Provider()) as manager:
        for prompt in range(3):
            fail(manager, error, prompt=prompt)
        with pytest.raises(NoNodeAvailable):
            manager.lease("bad", requirements=CHAT)
        manager.lease("good", requirements=CHAT).succeeded()
        states = {one.model: manager.deployment_status(one).state for one in manager.remotes[0].deployments}
        status = manager.status(manager.remotes[0])
    assert states == {"bad": "breaker-open", "good": "healthy"}
    assert (status.state, "bad is breaker-open" in str(status.reason)) == ("healthy", True)


@pytest.mark.parametrize("error", [RateLimited("x", retry_after=30.0), NodeBusy("x", retry_after=30.0)])
async def test_limits_are_per_model(error: NodeError) -> None:
    """A rate limit, and a full queue, keeps requests away from that model only."""
    clock = Clock()
    async with managing(Provider(), clock=clock) as manager:
        fail(manager, error)
        with pytest.raises(type(error)) as caught:
            manager.lease("bad", requirements=CHAT)
        assert isinstance(caught.value, NodeBusy)
        assert caught.value.retry_after == 30.0
        manager.lease("good", requirements=CHAT).succeeded()
        clock.now += 30
        manager.lease("bad", requirements=CHAT)


async def test_a_lost_connection_concerns_all_models() -> None:
    """A node that refuses connections is unreachable for all of its models."""
    async with managing(Provider()) as manager:
        fail(manager, NodeLost("refused"))
        with pytest.raises(NoNodeAvailable):
            manager.lease("good", requirements=CHAT)


async def test_attempts_of_one_request_count_once() -> None:
    """However often a request fails on a node, it counts as one failure."""
    async with managing(Provider()) as manager:
        failed = set(manager.remotes[0].deployments[:0])
        for _ in range(10):
            manager.lease("bad", requirements=CHAT, failed_deployments=failed).failed(EngineFailed("x"))
        manager.lease("bad", requirements=CHAT).abandoned()
        for prompt in range(2):
            fail(manager, EngineFailed("x"), prompt=prompt)
        with pytest.raises(NoNodeAvailable):
            manager.lease("bad", requirements=CHAT)


async def test_an_unreadable_answer_counts_if_different_requests_see_it() -> None:
    """Retries of a request whose answer cannot be read do not open the breaker; different requests do."""
    async with managing(Provider()) as manager:
        for _ in range(10):
            fail(manager, WireError("invalid answer"), prompt=7)
        manager.lease("bad", requirements=CHAT).abandoned()
        for prompt in range(2):
            fail(manager, WireError("invalid answer"), prompt=prompt)
        with pytest.raises(NoNodeAvailable):
            manager.lease("bad", requirements=CHAT)


async def test_other_failures_count_though_one_request_sees_them() -> None:
    """Failures of the engine open the breaker also if all of them are of requests with the same prompt."""
    async with managing(Provider()) as manager:
        for _ in range(3):
            fail(manager, EngineFailed("x"), prompt=7)
        with pytest.raises(NoNodeAvailable):
            manager.lease("bad", requirements=CHAT)


async def test_invalid_requests_never_count() -> None:
    """Requests that the server rejects (4xx) do not count, however many there are."""
    async with managing(Provider()) as manager:
        for _ in range(20):
            manager.lease("bad", requirements=CHAT).abandoned()
        manager.lease("bad", requirements=CHAT).succeeded()


async def test_priority() -> None:
    """A node of a higher priority number is asked only while no other is available."""
    clock = Clock()
    first, second = Provider("first"), Provider("second", Placement(priority=1))
    async with managing(second, first, clock=clock) as manager:
        assert {manager.lease("good", requirements=CHAT).remote.peer for _ in range(4)} == {"first"}
        manager.lease("good", requirements=CHAT).failed(RateLimited("x", retry_after=5.0))
        assert {manager.lease("good", requirements=CHAT).remote.peer for _ in range(4)} == {"second"}
        assert manager.lease("bad", requirements=CHAT).remote.peer == "first"
        clock.now += 5
        assert manager.lease("good", requirements=CHAT).remote.peer == "first"
        assert manager.lease("good", ["first"], requirements=CHAT).remote.peer == "second"


async def test_a_model_that_is_no_longer_served_is_forgotten() -> None:
    """A node keeps the states of the models that it serves only, however many names it has used."""
    node = Provider()
    async with managing(node) as manager:
        remote = manager.remotes[0]
        for number in range(50):
            info = await node.rpc_info()
            card = msgspec.structs.replace(info.cards[0], id=f"model-{number}")
            remote.mark_healthy(msgspec.structs.replace(info, cards=(card,)), 0.0)
            remote.deployment(f"model-{number}")
        assert [one.model for one in remote.deployments] == ["model-49"]
        assert len(remote._deployments) == 1


async def test_missing_endpoint() -> None:
    """A server without an endpoint gets no requests to it for a minute, and keeps getting others; it is not failing."""
    clock = Clock()
    async with managing(Provider(), clock=clock) as manager:
        for _ in range(4):
            manager.lease("bad", requirements=Requirements("chat", "embeddings")).failed(EndpointMissing("x"))
            with pytest.raises(EndpointMissing, match="'bad' does not support /v1/embeddings"):
                manager.lease("bad", requirements=Requirements("chat", "embeddings"))
            assert not manager.has_other("bad", (), Requirements("chat", "embeddings"))
            others: list[tuple[str, Endpoint]] = [("bad", "completions"), ("good", "embeddings")]
            for model, endpoint in others:
                assert manager.has_other(model, (), Requirements("chat", endpoint))
                manager.lease(model, requirements=Requirements("chat", endpoint)).succeeded()
            assert manager.status(manager.remotes[0]).state == "healthy"
            clock.now += 61


async def test_missing_endpoint_is_no_failure() -> None:
    """Many servers' refusals of an endpoint do not open the breaker of one that answers other requests."""
    async with managing(Provider()) as manager:
        leases = [manager.lease("bad", requirements=Requirements("chat", "completions")) for _ in range(6)]
        for lease in leases:
            lease.failed(EndpointMissing("x"))
        assert manager.status(manager.remotes[0]).state == "healthy"
