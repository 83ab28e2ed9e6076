"""What a server sends faster than it can be processed is parsed in parts, each in an iteration of the event loop."""

from __future__ import annotations

import asyncio
import gzip
from collections import deque
from typing import Any

import pytest

from subnet.errors import ResponseLost, WireError
from subnet.http.client import HttpClient
from subnet.http.connection import Connection
from subnet.http.content_coding import decoded
from subnet.http.event_reader import EventReader
from subnet.http.lenient_json import decode
from subnet.http.response_parser import BodyReceiver, ResponseHead
from subnet.http.sse import Event, SseParser
from tests.chat_node import chat_scripted
from tests.provider import chunk, event, events, raw
from tests.subnet.http.test_connections import HEAD, Client, collect, serving

BODY = bytes(range(256)) * 1024
PLAIN = b"HTTP/1.1 200 OK\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY)
GZIP = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n"


class Transport(asyncio.Transport):
    """Transport that records whether it is read, and forgets what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closed = False

    def write(self, data: Any) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close


class Receiver:
    """Receiver that records the sizes of what it is fed in each iteration of the event loop."""

    def __init__(self) -> None:
        self.done = False
        self.data = b""
        self.ended = False

    def feed(self, data: bytes) -> None:
        self.data += data

    def end(self) -> None:
        self.ended = True


class Exchange:
    """One request on a connection without a socket."""

    def __init__(self) -> None:
        self.transport, self.receiver = Transport(), Receiver()
        self.idle = 0
        self.connection = Connection("peer", self._on_idle, lambda connection: None)
        self.connection.connection_made(self.transport)

    def _on_idle(self, connection: Connection, head: ResponseHead) -> None:
        self.idle += 1

    def _on_head(self, head: ResponseHead) -> BodyReceiver:
        return decoded(self.receiver, head.headers.get("content-encoding", ""))

    async def begin(self) -> asyncio.Task[ResponseHead]:
        task = asyncio.create_task(self.connection.exchange(b"", self._on_head))
        await asyncio.sleep(0)
        return task


@pytest.mark.parametrize(
    ("head", "body", "most"), [(SIZED, BODY, 33_000), (GZIP, gzip.compress(BODY), 256 * 1032)], ids=["plain", "gzip"]
)
async def test_a_large_read_is_parsed_in_parts(head: bytes, body: bytes, most: int) -> None:
    """Other callbacks of the event loop have their turn between the parts, and the socket is not read meanwhile."""
    exchange = Exchange()
    finished = await exchange.begin()
    exchange.connection.data_received(head + body)
    lengths = [len(exchange.receiver.data)]
    while lengths[-1] < len(BODY):
        assert not exchange.transport.reading
        await asyncio.sleep(0)
        lengths.append(len(exchange.receiver.data))
    assert max(after - before for before, after in zip([0, *lengths], lengths, strict=False)) <= most
    assert len(lengths) > 1
    assert exchange.transport.reading
    if head is SIZED:
        assert (await finished).status == 200
        assert (exchange.receiver.ended, exchange.idle) == (True, 1)
    else:
        exchange.connection.connection_lost(None)
        await finished
    assert exchange.receiver.data == BODY


async def test_small_reads_are_parsed_at_once() -> None:
    """A read as small as a token, and the first one with the head, are parsed before data_received returns."""
    exchange = Exchange()
    finished = await exchange.begin()
    exchange.connection.data_received(PLAIN.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * 3000 + b"\r\n\r\n") + b"first")
    assert exchange.receiver.data == b"first"
    exchange.connection.data_received(b"x" * 10_000)
    assert len(exchange.receiver.data) == 10_005
    assert exchange.transport.reading
    exchange.connection.connection_lost(None)
    await finished


@pytest.mark.parametrize(
    ("error", "is_complete"), [(None, True), (ConnectionResetError(), False)], ids=["closed", "reset"]
)
async def test_a_connection_that_is_lost_while_parts_wait(error: Exception | None, is_complete: bool) -> None:
    """What arrived before the end of a connection is parsed before the end counts."""
    exchange = Exchange()
    finished = await exchange.begin()
    exchange.connection.data_received(PLAIN + BODY)
    exchange.connection.connection_lost(error)
    assert not finished.done()
    if is_complete:
        await finished
        assert exchange.receiver.ended
    else:
        with pytest.raises(ResponseLost):
            await finished
    assert exchange.receiver.data == BODY


async def test_bytes_after_a_response_are_not_those_of_the_next_one() -> None:
    """A connection with bytes after a complete response is closed, also if they wait for a later part."""
    exchange = Exchange()
    finished = await exchange.begin()
    exchange.connection.data_received(SIZED + BODY + SIZED + BODY)
    await finished
    assert (exchange.idle, exchange.transport.closed) == (0, True)
    await asyncio.sleep(0)
    assert exchange.receiver.data == BODY


async def test_a_cancelled_request_drops_the_parts() -> None:
    """After a cancellation nothing more is parsed."""
    exchange = Exchange()
    finished = await exchange.begin()
    exchange.connection.data_received(PLAIN + BODY)
    finished.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finished
    length = len(exchange.receiver.data)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(exchange.receiver.data) == length < len(BODY)


async def test_a_large_response_that_ends_with_its_connection() -> None:
    """A response of megabytes, sent at once and ended by closing the connection, is complete."""
    texts = [str(number) * 50 for number in range(20_000)]

    def handle(client: Client, number: int) -> None:
        client.send(HEAD + b"\r\n" + b"".join(event(text) for text in texts))
        client.close()

    async with serving(handle) as server, HttpClient(server.spec) as http:
        assert [each.data for each in await collect(http)] == texts


@pytest.mark.parametrize("line", [b"\n", b":\n", b"id: 7\n\n", b"event: x\n\n", b"x\n\n"])
async def test_lines_without_end(line: bytes) -> None:
    """Lines that are no event end a response, once there are far more than any server sends."""
    with pytest.raises(WireError, match="lines without an event"):
        await chat_scripted(raw(event(chunk({"content": "a"})), line * 70_000))


class Counter:
    """Sink that counts events and comments."""

    def __init__(self) -> None:
        self.done = self.is_json = False
        self.datas = self.others = 0

    def data(self, data: bytes) -> None:
        self.datas += 1

    def event(self, event: Event) -> None:
        self.others += 1


@pytest.mark.parametrize("comments", [b": comment\n\n" * 10, b": comment\n" * 10, b": comment\n\n"])
def test_comments_between_events_may_go_on(comments: bytes) -> None:
    """Comments are counted from the last event on, also where that is read on the shorter path."""
    sink = Counter()
    reader = EventReader("peer", sink, lambda value: None)
    reader.feed(b": begin\n\n")
    for _ in range(10_000):
        reader.feed(b"data: {}\n\n")
        reader.feed(comments)
    assert sink.datas + sink.others == 10_001 + 10_000 * comments.count(b":")
    with pytest.raises(WireError, match="lines without an event"):
        deque(map(reader.feed, [comments] * 70_000), maxlen=0)


def test_empty_lines_are_counted_from_the_last_event_on() -> None:
    """The parser itself counts lines since the last event; lines of data are none of them."""
    parser = SseParser()
    assert len(parser.feed(b"data: a\n\n\n\n" * 60_000)) == 60_000
    parser.feed(b"data: a\n" * 100_000)
    with pytest.raises(WireError, match="lines"):
        parser.feed(b"\n" * 70_000)


async def test_values_with_too_many_items() -> None:
    """An event with millions of items is refused before they take a hundred times its size in memory."""
    many = "[" * 700_000 + "]" * 700_000
    for text in (f'{{"choices": [{"[],[]," * 1_100_000}[]]}}', f'{{"choices": [{many * 3}]}}'):
        with pytest.raises(WireError, match="not valid JSON"):
            await chat_scripted(events(text))
    long = f'["{"x" * (2 << 20)}"]'
    assert decode(long) == decode(long.encode()) == ["x" * (2 << 20)]
