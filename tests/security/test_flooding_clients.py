"""Clients that flood a gateway process with connections, heads, bodies and requests: its memory stays bounded, and a
stream beside them is complete and undisturbed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import pairwise
from threading import Event
from time import monotonic
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
import pytest

from tests.faults import programs
from tests.faults.answers import Answer
from tests.faults.asking import Question, ask
from tests.processes import until

T = TypeVar("T")

MIB = 2**20
MAX_CONNECTIONS = 200
MAX_MEMORY = 32 * MIB
FLAGS = (
    *("--max-connections", str(MAX_CONNECTIONS), "--max-request-memory", str(MAX_MEMORY)),
    *("--max-waiting", "40", "--queue-timeout", "30", "--first-token-timeout", "30", "--inter-token-timeout", "30"),
)
# A node with few slots, of which the stream has one.
NODE = ("subnet.cli", "node", "--engine", "echo", "--concurrency", "4", "--echo-rate", "100")
STREAM = Question(max_tokens=200)
GET = b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: "


@pytest.fixture(scope="module")
def gateway() -> Iterator[programs.Gateway]:
    with programs.nodes(NODE) as nodes, programs.gateway([nodes[0].address], FLAGS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def expected(gateway: programs.Gateway) -> Answer:
    """The answer of an undisturbed stream."""
    return ask(gateway.url, STREAM)


class Flood:
    """Connections of a client, closed at the end. `memory` is what the gateway has used since it began, in bytes."""

    def __init__(self, gateway: programs.Gateway) -> None:
        assert gateway.process is not None
        self._process = psutil.Process(gateway.process.pid)
        self._before = self._process.memory_info().rss
        self._address = urlsplit(gateway.url)
        self._opened = ExitStack()

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def memory(self) -> int:
        return self._process.memory_info().rss - self._before

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self._address.hostname, self._address.port), timeout=20)
        return self._opened.enter_context(connection)

    def send(self, data: bytes) -> socket.socket:
        """Send data on a new connection, which the gateway may close meanwhile."""
        connection = self.connect()
        with suppress(ConnectionError):
            connection.sendall(data)
        return connection


def beside(gateway: programs.Gateway, expected: Answer, flood: Callable[[], T]) -> T:
    """Call `flood` in the middle of a stream, and return its result. The stream must be the same as ever."""
    begun = Event()
    with ThreadPoolExecutor(1) as thread:
        stream = thread.submit(ask, gateway.url, STREAM, lambda pieces: begun.set())
        begun.wait(20)
        result = flood()
        answer = stream.result()
    assert answer.complete
    assert answer.outcome == expected.outcome
    gaps = [1000 * (after - before) for before, after in pairwise(answer.text_times)]
    print(f"largest gap of the stream: {max(gaps):.0f} ms")
    return result


def response(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Return status and headers of the response on a connection; 0 if it is closed without one."""
    data = b""
    with suppress(ConnectionError):
        while b"\r\n\r\n" not in data and (part := connection.recv(65536)):
            data += part
    if not data:
        return 0, {}
    status, *lines = data.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines)


def test_a_pipeline_of_half_a_million_requests(gateway: programs.Gateway, expected: Answer) -> None:
    """Of 500,000 requests on one connection whose responses are not read, the gateway takes only a few."""

    def flood() -> tuple[int, int]:
        with Flood(gateway) as client:
            connection, data = client.connect(), memoryview(GET * 500_000)
            connection.settimeout(0.5)
            sent = 0
            with suppress(TimeoutError):
                while sent < len(data):
                    sent += connection.send(data[sent : sent + MIB])
            return sent, client.memory

    sent, memory = beside(gateway, expected, flood)
    print(
        f"{sent / MIB:.1f} of {500_000 * len(GET) / MIB:.1f} MiB were accepted, {memory / MIB:.1f} MiB of memory used"
    )
    assert memory < 16 * MIB


def test_incomplete_heads(gateway: programs.Gateway, expected: Answer) -> None:
    """Connections with incomplete heads just below the limit make room for others, and use little memory each."""
    head = GET[:-2] + b"".join(b"x-%d: %b\r\n" % (number, b"y" * 600) for number in range(95))

    def flood() -> int:
        with Flood(gateway) as client:
            for _ in range(2 * MAX_CONNECTIONS):
                client.send(head)
            assert response(client.send(GET))[0] == 200
            return client.memory

    memory = beside(gateway, expected, flood)
    print(f"{memory / MIB:.1f} MiB of memory used")
    assert memory < 3 * MAX_CONNECTIONS * len(head)


def test_unfinished_bodies(gateway: programs.Gateway, expected: Answer) -> None:
    """Beyond the limit of memory, unfinished bodies get a 503 with a time to return, and the memory is free again once
    their clients leave.
    """

    def flood() -> int:
        with Flood(gateway) as client:
            sent = [client.send(POST + b"8000000\r\n\r\n" + b" " * 2 * MIB) for _ in range(40)]
            for connection in sent:
                connection.settimeout(0.2)
            refused = [headers for status, headers in map(try_response, sent) if status == 503]
            assert len(refused) >= 20
            assert all(int(headers["retry-after"]) >= 1 for headers in refused)
            return client.memory

    memory = beside(gateway, expected, flood)
    print(f"{memory / MIB:.1f} MiB of memory used")
    assert memory < 3 * MAX_MEMORY
    until(lambda: ask(gateway.url, Question(max_tokens=1)).status == 200)


def try_response(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Return the response, or 0 if there is none yet."""
    try:
        return response(connection)
    except TimeoutError:
        return 0, {}


def test_more_requests_than_may_wait(gateway: programs.Gateway, expected: Answer) -> None:
    """Beyond the limit of waiting requests, further ones get a 503 at once, and are asked to return later and later."""
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "a"}], "max_tokens": 100}).encode()
    request = POST + b"%d\r\n\r\n" % len(body) + body

    def flood() -> list[int]:
        with Flood(gateway) as client:
            sent = [client.send(request) for _ in range(150)]
            for connection in sent:
                connection.settimeout(0.05)
            found = [try_response(connection) for connection in sent]
            assert {status for status, _ in found} <= {0, 200, 503}
            return [int(headers["retry-after-ms"]) for status, headers in found if status == 503]

    times = beside(gateway, expected, flood)
    print(f"{len(times)} requests were refused, for {times[0]} to {times[-1]} ms")
    assert len(times) >= 100
    assert max(times) >= times[0] + 500


def test_connections_beyond_the_maximum(gateway: programs.Gateway, expected: Answer) -> None:
    """Connections that all have unfinished requests keep new ones out with a 503, until they are closed."""

    def flood() -> int:
        with Flood(gateway) as client:
            # A connection whose request was not read yet makes room for the next one.
            for _ in range(2 * MAX_CONNECTIONS):
                client.send(POST + b"100\r\n\r\n{")
            assert response(client.send(GET))[0] in (0, 503)
            return client.memory

    memory = beside(gateway, expected, flood)
    print(f"{memory / MIB:.1f} MiB of memory used")
    assert memory < 16 * MIB
    started = monotonic()
    until(lambda: ask(gateway.url, Question(max_tokens=1)).status == 200)
    print(f"served again after {monotonic() - started:.1f} s")
