"""With a secret set, an address must prove it: nothing else there gets prompts, whatever it pretends to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapter.config import Settings
from adapter.process.gateway import authorizer_of
from subnet import Limits, RemoteManager, Sampling, SessionManager, TokenAuthorizer
from subnet.authorizers import AuthorizerBase
from subnet.chat import ChatRequest
from subnet.detect.detect import UnsupportedServer
from subnet.detect.upstream_protocol import UpstreamProtocol
from subnet.engines.echo import EchoEngine, EchoOptions
from subnet.errors import NodeError, NodeLost, NoNodeAvailable, Unauthorized
from subnet.http.node_spec import NodeSpec
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.protocols.websocket import WebSocketProtocol
from tests.security.test_signatures import generate
from tests.subnet.detect.test_detect import OLLAMA, OPENAI, serving

SECRET = TokenAuthorizer("secret")
OPTIONS = EchoOptions(rate=400.0, size=60)


@asynccontextmanager
async def protocol_of(url: str, **spec: Any) -> AsyncIterator[UpstreamProtocol]:
    protocol = UpstreamProtocol(NodeSpec(url=url, **spec), SECRET)
    try:
        yield protocol
    finally:
        await protocol.aclose()


class Recorded(EchoEngine):
    """Engine that records the prompts it gets."""

    def __init__(self) -> None:
        super().__init__(options=OPTIONS)
        self.prompts: list[list[int]] = []

    async def run(self, job: Any, emit: Any) -> None:
        self.prompts.append(job.prompt.tolist())
        await super().run(job, emit)


@pytest.mark.parametrize("answers", [OPENAI, OLLAMA], ids=["openai", "ollama"])
async def test_another_server_is_not_used(answers: dict[str, Any]) -> None:
    """A server that is no subnet node is not used, and the message says how to use it if it is meant."""
    async with serving(answers) as server, protocol_of(server.url) as protocol:
        with pytest.raises(UnsupportedServer, match=r"not used: with a secret set, .*, as in \w+=http://127"):
            await protocol.rpc_info()
        with pytest.raises(NodeLost, match="has not been reached yet"):
            await protocol.rpc_chat(ChatRequest(model="m", body={"messages": []}), lambda delta: None)
        assert not any("completions" in path for path in server.paths)


@pytest.mark.parametrize("spec", [{"kind": "openai"}, {"api_key": "sk-1"}, {"headers": {"x-key": "1"}}], ids=str)
async def test_a_server_that_the_operator_means(spec: dict[str, Any]) -> None:
    """A server is used whose type the operator gives, or to which requests carry a key."""
    async with serving(OPENAI) as server, protocol_of(server.url, **spec) as protocol:
        assert (await protocol.rpc_info()).engine == "openai"


@pytest.mark.parametrize("stranger", [None, TokenAuthorizer("another")], ids=["none", "another"])
@pytest.mark.parametrize("spec", [{}, {"kind": "subnet"}, {"api_key": "sk-1"}], ids=str)
async def test_a_node_without_the_secret_is_not_used(stranger: AuthorizerBase | None, spec: dict[str, Any]) -> None:
    async with EchoEngine() as engine, listening(Node(engine, stranger), "127.0.0.1", 0) as url:
        async with protocol_of(url, **spec) as protocol:
            with pytest.raises(Unauthorized):
                await protocol.rpc_info()


@pytest.mark.parametrize("stranger", [None, TokenAuthorizer("another")], ids=["none", "another"])
async def test_the_port_of_a_node_that_has_gone(stranger: AuthorizerBase | None) -> None:
    """A node without the secret that takes over the port of one with it gets no prompt: neither from a request that
    comes before the next health check, nor in the middle of an answer, which the other node completes unchanged.
    """
    async with Recorded() as engine, Recorded() as other, Recorded() as thief:
        async with listening(Node(other, SECRET), "127.0.0.1", 0) as second:
            async with listening(node := Node(engine, SECRET), "127.0.0.1", 0) as first:
                manager = RemoteManager([first, second], authorizer=SECRET, probe_interval=3600.0)
                await manager.__aenter__()
                try:
                    await manager.ready()
                    expected = await answer_of(manager)
                    while manager.remotes[1].unreachable_reason is not None:
                        await asyncio.sleep(0.01)
                    engine.prompts.clear()
                    running = [asyncio.create_task(answer_of(manager)) for _ in range(2)]
                    while not node.running:
                        await asyncio.sleep(0.01)
                    await node.drain(0.0)
                except BaseException:
                    await manager.__aexit__(None, None, None)
                    raise
            port = int(first.rpartition(":")[2])
            async with listening(Node(thief, stranger), "127.0.0.1", port):
                try:
                    assert await asyncio.gather(*running) == [expected] * 2
                    direct = WebSocketProtocol(first, SECRET)
                    with pytest.raises(Unauthorized):
                        await direct.rpc_inference(generate(), lambda delta: None)
                    await direct.aclose()
                    remote = manager.remotes[0].protocol
                    with pytest.raises(NodeError):
                        await remote.rpc_inference(generate(), lambda delta: None)
                    assert await answer_of(manager) == expected
                finally:
                    await manager.__aexit__(None, None, None)
    assert (thief.prompts, len(engine.prompts) + len(other.prompts) >= 4) == ([], True)


async def answer_of(manager: RemoteManager) -> list[int]:
    limits = Limits(max_attempts=4, queue_timeout=5.0)
    async with SessionManager(manager, limits=limits).session() as session:
        deltas = session.generate(list(b"hello"), Sampling(seed=1))
        return [token async for delta in deltas for token in delta.tokens]


async def test_a_gateway_of_thieves_only() -> None:
    """When nothing proves the secret, requests fail."""
    async with Recorded() as thief, listening(Node(thief), "127.0.0.1", 0) as url:
        async with RemoteManager([url], authorizer=SECRET, probe_interval=0.05) as manager:
            while "not signed" not in str(manager.remotes[0].unreachable_reason):
                await asyncio.sleep(0.01)
            with pytest.raises(NoNodeAvailable):
                await answer_of_now(manager)
    assert not thief.prompts


async def answer_of_now(manager: RemoteManager) -> None:
    async with SessionManager(manager, limits=Limits(queue_timeout=0.0)).session() as session:
        await session.run([1], None, lambda delta: None)


async def test_a_secret_for_each_node() -> None:
    """A node has the secret in its own settings, or else the gateway's; and one node's secret is of no use to another
    that takes its place.
    """
    specs = {"one": NodeSpec(url="http://a", secret="own"), "two": NodeSpec(url="http://b")}
    authorizers = {name: authorizer_of(spec, Settings(secret="common")) for name, spec in specs.items()}
    assert authorizer_of(specs["two"], Settings()) is None
    for secret, accepted in (("own", "one"), ("common", "two")):
        async with EchoEngine() as engine, listening(Node(engine, TokenAuthorizer(secret)), "127.0.0.1", 0) as url:
            for name, authorizer in authorizers.items():
                remote = WebSocketProtocol(url, authorizer)
                if name == accepted:
                    assert (await remote.rpc_info()).engine == "echo"
                else:
                    with pytest.raises(Unauthorized):
                        await remote.rpc_info()
                await remote.aclose()
