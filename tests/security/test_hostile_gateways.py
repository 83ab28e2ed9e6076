"""Clients of a node that flood it with calls do not disturb the streams of its other clients, nor fill its memory."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event

import msgspec
import numpy as np
import pytest

from subnet.generation import Sampling
from subnet.tensors import pack
from subnet.wire import frames
from subnet.wire.messages import ChoiceStart, Generate, InfoRequest
from subnet.wire.outbox import MAX_QUEUED
from tests.faults import programs
from tests.processes import until
from tests.security.beside import QUESTION, check_beside

# Replies that wait for a client that does not read, and frames of the maximum size: arriving, whole and decoded.
MAX_GROWTH = 2 * MAX_QUEUED + (160 << 20)
SHORT = msgspec.structs.replace(QUESTION, max_tokens=120)
_HANDSHAKE = (
    b"GET /subnet HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(payload: bytes) -> bytes:
    """Encode a frame of a client, with the mask that changes nothing."""
    return b"\x82\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload


def generate(call: int) -> bytes:
    prompt = pack(np.ones(8_000_000, np.int32))
    start = ChoiceStart(0, pack(np.empty(0, np.int32)))
    return frames.encode(Generate(call=call, model=None, prompt=prompt, sampling=Sampling(), starts=(start,)))


FLOODS: dict[str, Callable[[int], bytes]] = {
    "calls": lambda first: b"".join(masked(frames.encode(InfoRequest(first * 1000 + call))) for call in range(1000)),
    "prompts": lambda call: masked(generate(call)),
}
"""Bytes to send next, by kind; the argument counts from 0."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[programs.Gateway, programs.Node]]:
    with programs.nodes(programs.PACED) as (node,):
        with programs.gateway([node.address], ("--inter-token-timeout", "1")) as gateway:
            until(lambda: all(row["state"] == "healthy" for row in gateway.table))
            yield gateway, node


@pytest.mark.parametrize("kind", FLOODS)
def test_flooding_client(
    gateway: tuple[programs.Gateway, programs.Node], kind: str, record_property: Callable[[str, object], None]
) -> None:
    """The stream of another client is the same and complete beside one that sends calls and reads no reply."""
    front, node = gateway

    def attack(ended: Event) -> None:
        with socket.create_connection(("127.0.0.1", node.port)) as client:
            client.sendall(_HANDSHAKE)
            client.settimeout(0.1)
            number = 0
            while not ended.is_set():
                data = memoryview(FLOODS[kind](number))
                number += 1
                while data and not ended.is_set():
                    with suppress(TimeoutError):
                        data = data[client.send(data) :]

    report = check_beside(attack, front, max_growth=MAX_GROWTH, attacked=node, question=SHORT)
    record_property("gap", report.gap)
    record_property("growth", report.growth)
    print(f"{kind}: gap {1000 * report.gap:.0f} ms, growth {report.growth >> 20} MiB")
