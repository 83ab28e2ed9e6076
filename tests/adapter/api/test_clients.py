"""Clients are told apart by key or address, and served in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest

from adapter.auth.clients import client_at
from adapter.auth.keys import ApiKeys
from adapter.config import Settings
from adapter.server.protocol import HttpProtocol
from subnet import Limits
from subnet.generation import Delta
from subnet.protocols.mock import MockProtocol
from subnet.tensors import unpack
from subnet.wire.messages import Generate
from tests.fakes import gateway

KEYS = ("key-of-many", "key-of-few")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("127.8.9.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
        ("a path", None),
    ],
)
def test_the_client_at_an_address(address: str, client: str | None) -> None:
    """Addresses of one IPv6 network are one client, and this machine, like an unknown address, is not one."""
    assert client_at(address) == client


def test_the_client_of_a_key() -> None:
    """The first valid key of a request tells which client it is from; without keys it is unknown."""
    keys = ApiKeys(KEYS)
    assert keys.check("Bearer key-of-few") == 1
    assert keys.check("Bearer made-up", "key-of-many") == 0
    assert keys.check("Bearer key-of-few", "key-of-many") == 1
    assert ApiKeys().check("Bearer any") is None


async def test_clients_with_keys_are_served_in_turn() -> None:
    """The only request of one key is answered before most of the many that another key sent earlier."""
    may, answered = asyncio.Event(), list[str]()

    class Node(MockProtocol):
        """Node with one slot, which it keeps until all requests have arrived."""

        async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
            answered.append(bytes(unpack(request.prompt).tolist()).decode())
            await may.wait()
            async for item in super().rpc_inference_stream(request):
                yield item

    received = 0

    class Counting(HttpProtocol):
        def on_message_complete(self) -> None:
            nonlocal received
            received += 1
            super().on_message_complete()

    settings, limits = Settings(api_keys=KEYS, access_log=False), Limits(queue_timeout=60)
    async with gateway(Node([65], capacity=1), settings=settings, limits=limits, http=Counting) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as http:

            async def ask(key: str) -> int:
                body = {"model": "mock", "prompt": key, "max_tokens": 1}
                headers = {"authorization": f"Bearer {key}"}
                return (await http.post("/v1/completions", json=body, headers=headers)).status_code

            async def wait_for(requests: int) -> None:
                """Wait until the gateway has received a number of requests and begun to serve them."""
                while received < requests:
                    await asyncio.sleep(0.001)
                for _ in range(3):
                    await http.get("/healthz")

            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(ask(KEYS[0])) for _ in range(30)]
                await wait_for(30)
                asked.append(tasks.create_task(ask(KEYS[1])))
                await wait_for(34)
                may.set()
    assert [task.result() for task in asked] == [200] * 31
    assert answered.index(KEYS[1]) <= 2
