"""What a request was made of is freed when it is over, without the garbage collector: no part of it knows itself."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from subnet.chat import ChatDelta
from subnet.errors import NodeLost
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol, Pause
from subnet.protocols.mock_chat import MockChatProtocol
from tests.fakes import ASK, gateway, saying
from tests.test_disconnect import PATIENT, Watched, client, gone

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@contextmanager
def no_cycles() -> Iterator[None]:
    """Raises where objects of ours wait for the collector that were not there before."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        found = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = {name: count for name, count in found.items() if name.startswith(("adapter.", "subnet."))}
    assert not ours


async def asked(url: str, fields: dict[str, Any]) -> None:
    """On a connection of its own, until the answer is whole."""
    async with client(url, fields=fields) as (reader, _):
        async with asyncio.timeout(5):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"chunked" in head:
                while await reader.readline() != b"0\r\n":
                    pass
            else:
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2, "logprobs": True, "stop": ["x"]},
        {"tools": [TOOL], "stream_options": {"include_usage": True}},
        {"temperature": 3},
    ],
    ids=["plain", "choices", "tools", "wrong"],
)
async def test_answers_and_refusals(stream: bool, fields: dict[str, Any]) -> None:
    """On the token lane."""
    fields = {**ASK, "stream": stream, **fields}
    if not stream:
        fields.pop("stream_options", None)
    node = saying("Hello", capabilities=Capabilities(resume="exact", top_logprobs=2))
    async with gateway(node) as url:
        await asked(url, fields)
        with no_cycles():
            await asked(url, fields)
            await settled()


async def settled() -> None:
    """Until the server has closed its connection, too."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_switch() -> None:
    """Of nodes, in the middle of an answer."""
    lost = MockProtocol([*b"He", NodeLost("gone")], peer="a")
    async with gateway(lost, MockProtocol([*b"Hello"], peer="b")) as url:
        await asked(url, {**ASK, "stream": True})
        with no_cycles():
            for _ in range(2):
                await asked(url, {**ASK, "stream": True})
            await settled()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_chat_lane(stream: bool) -> None:
    """And on a server that takes messages."""
    node = MockChatProtocol([ChatDelta(0, "Hello"), ChatDelta(0, finish_reason="stop")])
    async with gateway(node) as url:
        await asked(url, {**ASK, "stream": stream})
        with no_cycles():
            await asked(url, {**ASK, "stream": stream})
            await settled()


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves(stream: bool) -> None:
    """In the middle of an answer."""
    node = Watched([65, Pause()])
    async with gateway(node, limits=PATIENT) as url:
        before = asyncio.all_tasks()
        with no_cycles():
            async with client(url, fields={**ASK, "stream": stream}):
                await node.began.wait()
            await gone(node, before)
            await settled()
