"""The benchmark: it counts events however they are split, and notices wrong answers."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.echo import EchoEngine
from subnet.node.run import listening
from subnet.node.server import Node
from tests.bench.direct import first_tokens
from tests.bench.figures import Figures, check
from tests.bench.load import Answer, Asking, Incomplete, Load, drive
from tests.bench.replay import pieces
from tests.bench.streaming import late
from tests.bench.table import Row, table

EVENTS = [
    b'data: {"delta":{"role":"assistant","content":""}}',
    b'data: {"delta":{"content":" a"}}',
    b'data: {"delta":{"content":" of"}}',
    b'data: {"delta":{},"finish_reason":"length"}',
    b"data: [DONE]",
]
BODY = b"".join(event + b"\n\n" for event in EVENTS)
CHUNKED = b"".join(b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event) for event in EVENTS) + b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire(asyncio.Transport):
    """Transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: object) -> None:
        self.written.append(cast(bytes, data))

    def close(self) -> None:
        self.closed = True


async def answer(*parts: bytes) -> Answer:
    made = Answer(b"?", 0)
    made.connection_made(Wire())
    for part in parts:
        made.data_received(part)
    return made


async def test_refused_connections() -> None:
    """Refused connections count as wrong answers, and the rest of the load continues."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    answers = await drive(f"http://{address[0]}:{address[1]}", Load(3, 2, answers=2, pause=0.001))
    assert len(answers) == 6
    with pytest.raises(Incomplete, match=r"6 of 6 .* status none"):
        check(answers, 2)


def test_streams_that_fell_behind_are_reported() -> None:
    """Streams that fell behind are reported as the sum of all runs, if there are any."""
    kept = Figures(
        streams=2, complete=2, per_second=1, per_cpu_second=1, cpu=1, gap=(1, 1, 1), behind=0, shares=[1], memory=1
    )
    assert late([kept, kept]) == ""
    fell = msgspec.structs.replace(kept, behind=2)
    assert late([kept, fell, fell]).startswith("4 streams fell behind")


async def test_the_same_load_without_a_gateway() -> None:
    """A load without a gateway requests every answer from the node and times its first token."""
    async with EchoEngine() as engine, listening(Node(engine), "127.0.0.1", 0) as address:
        waited = await first_tokens(address, Load(3, 5, answers=2))
    assert len({number for number, _ in waited}) == 6
    assert all(seconds > 0 for _, seconds in waited)


@given(st.lists(st.integers(1, len(HEAD + CHUNKED) - 1), unique=True, max_size=5))
async def test_events_are_counted_however_they_are_cut(cuts: list[int]) -> None:
    """An answer's events are counted correctly wherever its bytes are split."""
    edges = [0, *sorted(cuts), len(HEAD + CHUNKED)]
    data = HEAD + CHUNKED
    made = await answer(*(data[a:b] for a, b in pairwise(edges)))
    check([made], 2)
    assert made.first >= made.sent


@pytest.mark.parametrize("parts", [[], [HEAD + CHUNKED[:-5]], [HEAD + CHUNKED.replace(b'{"content":" of"}}\n\n', b"")]])
async def test_wrong_answers(parts: list[bytes]) -> None:
    """A missing answer, a cut one, and one that lacks a token raise Incomplete."""
    with pytest.raises(Incomplete, match="1 of 1"):
        check([await answer(*parts)], 2)


async def test_next_request_on_the_same_connection() -> None:
    """Complete answers are distinguished from wrong ones, and the next is requested on the same connection."""
    wire = Wire()
    asking = Asking(iter([b"1", b"2", b"3"]), b"ten")
    asking.connection_made(wire)
    for reply in (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nte", b"n"):
        asking.data_received(reply)
    asking.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnine")
    asking.data_received(b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nten")
    assert (asking.right, asking.wrong, wire.written, wire.closed) == (1, 2, [b"1", b"2", b"3"], True)


def test_replay_equals_the_recorded_answer() -> None:
    """A replayed answer has the same bytes as the recorded one, with one write per token."""
    assert b"".join(pieces(BODY)) == BODY
    assert len(pieces(BODY)) == 3


def test_the_table() -> None:
    """A row has the median, in bold if it reaches the goal, and the ratio to compared figures."""
    rows = [
        Row(what="cost", unit="us", goal=12, values=[30, 10, 11], beside={"nginx": [22.0]}),
        Row(what="rate", unit="a second", goal=3000, more=True, values=[2000]),
    ]
    rows.append(Row(what="TLS", unit="us", goal=None, values=[30]))
    cost, rate, tls = table(rows).splitlines()[2:]
    assert tls == "| TLS, us | none | 30 | 30 |  |  |"
    assert cost == "| cost, us | at most 12 | **11** | 17 | 10 to 30 | nginx 22 (0.50 x) |"
    assert rate == "| rate, a second | at least 3,000 | 2,000 | 2,000 |  |  |"
