"""Several gateway processes behind one address."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from openai import APIError, OpenAI

from adapter.config import Settings
from adapter.process.fd_passing import Giver, Taker, pair
from adapter.process.workers import Worker
from subnet.errors import SettingsError
from tests.processes import Running, adapter_up, until

FLAGS = ("--engine", "echo", "--concurrency", "64", "--workers", "2")


@contextmanager
def two_workers(directory: Path, *flags: str) -> Iterator[Running]:
    with adapter_up(*FLAGS, *flags, directory=str(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that leave two workers as they found them."""
    with two_workers(tmp_path_factory.mktemp("lasting")) as running:
        yield running


def workers(running: Running) -> dict[int, psutil.Process]:
    children = running.nodes()
    return {child.pid: child for child in children if "adapter.process.worker" in child.cmdline()}


def connections(running: Running) -> Counter[int]:
    """How many clients' connections each of the workers has."""
    port = int(running.url.rpartition(":")[2])
    return Counter(
        pid
        for pid, worker in workers(running).items()
        for connection in worker.net_connections("tcp")
        if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    )


def stream(url: str, tokens: int) -> Iterator[str]:
    """The text of an answer, chunk by chunk."""
    client = OpenAI(base_url=url + "/v1", api_key="any", max_retries=0)
    for chunk in client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "go"}], max_tokens=tokens, seed=3, stream=True
    ):
        yield chunk.choices[0].delta.content or ""


def counted(url: str) -> float:
    """Requests that /metrics has counted."""
    lines = httpx.get(url + "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("adapter_requests_total{"))


def open_ones(url: str, count: int, stack: ExitStack) -> None:
    """So many connections, each of which has asked something and is kept open."""
    for _ in range(count):
        client = stack.enter_context(httpx.Client(base_url=url))
        assert client.get("/healthz").status_code == 200


def test_connections_are_shared_evenly(lasting: Running) -> None:
    """Each worker has half, however they came and went."""
    with ExitStack() as kept:
        open_ones(lasting.url, 10, kept)
        with ExitStack() as gone:
            open_ones(lasting.url, 7, gone)
        until(lambda: connections(lasting).total() == 10)
        open_ones(lasting.url, 10, kept)
        assert list(connections(lasting).values()) == [10, 10]


def test_a_worker_dies(lasting: Running) -> None:
    """The others serve meanwhile, it is started again, and nothing that it counted is lost."""
    before = set(workers(lasting))
    for _ in range(10):
        assert httpx.get(lasting.url + "/readyz").status_code == 200
    until(lambda: counted(lasting.url) >= 10)
    killed = before.pop()
    psutil.Process(killed).kill()
    until(lambda: any("running again" in line for line in lasting.lines))
    assert killed not in workers(lasting)
    assert before < set(workers(lasting))
    assert httpx.get(lasting.url + "/readyz").status_code == 200
    assert counted(lasting.url) >= 11
    ended = next(line for line in lasting.lines if "exited" in line)
    assert "exited (signal 9); restarting it in 0.2 s" in ended


def test_told_to_end(tmp_path: Path) -> None:
    """SIGTERM in the middle of an answer: it comes whole, the address says 503 meanwhile, and nothing is left."""
    with two_workers(tmp_path) as running:
        whole = "".join(stream(running.url, 40))
        chunks = stream(running.url, 40)
        text = "".join(next(chunks) for _ in range(5))
        children = running.nodes()
        running.process.send_signal(signal.SIGTERM)
        until(lambda: status(running.url) == 503)
        assert text + "".join(chunks) == whole
        assert running.process.wait(20) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert "Traceback" not in "".join(running.lines)
    assert not any("restarting it" in line for line in running.lines)


def status(url: str) -> int | None:
    """Of /readyz; None where the worker that would have answered ended just then."""
    try:
        return httpx.get(url + "/readyz").status_code
    except httpx.TransportError:
        return None


def test_a_second_signal(tmp_path: Path) -> None:
    """It ends everything at once, though an answer is far from its end."""
    with two_workers(tmp_path) as running:
        chunks = stream(running.url, 4000)
        next(chunks)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: any("press Ctrl-C again to stop now" in line for line in running.lines))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        with pytest.raises(APIError, match="shutting down"):
            list(chunks)


def test_the_drain_timeout(tmp_path: Path) -> None:
    """An answer that is not finished in time ends with an error event and without [DONE], not in silence."""
    with two_workers(tmp_path, "--drain-timeout", "0.5") as running:
        chunks = stream(running.url, 4000)
        next(chunks)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(APIError, match="shutting down"):
            list(chunks)
        assert running.process.wait(20) == 0
    assert any("drain_timeout of 0.5 s reached; 1 request stopped" in line for line in running.lines)
    assert "Traceback" not in "".join(running.lines)


def test_the_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither workers nor nodes outlive it, nor the files in which they count."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with two_workers(tmp_path) as running:
        children = running.nodes()
        assert len(children) == 4
        assert list(tmp_path.iterdir())
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not list(tmp_path.iterdir())


async def test_a_worker_that_does_not_start(tmp_path: Path) -> None:
    """At the start of all, that is the end: one line says so, under what the worker printed itself."""
    worker = Worker("worker 1", Settings(), str(tmp_path / "nowhere"), print)
    try:
        with pytest.raises(SettingsError, match=r"^worker 1 did not start: exit code 1$"):
            await worker.start()
    finally:
        await worker.stop()


class Greeter(asyncio.Protocol):
    """Says hello and leaves, when it is asked to."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"hello")

    def data_received(self, data: bytes) -> None:
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._taker.over()


@asynccontextmanager
async def given() -> AsyncIterator[tuple[Giver, socket.socket, asyncio.Event]]:
    """A giver, the channel's other end, and whether the taker there knows that the giver is gone."""
    ours, theirs = pair()
    gone = asyncio.Event()
    taker = Taker(theirs)
    taker.start(lambda: Greeter(taker), gone.set)
    giver = Giver(ours)
    hearing = asyncio.create_task(giver.hear())
    try:
        yield giver, theirs, gone
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        ours.close()
        await gone.wait()
        theirs.close()


async def test_a_connection_given_away() -> None:
    """The client talks to the taker, and the giver knows when that is over."""
    async with given() as (giver, _, _):
        clients = []
        for _ in range(3):
            here, there = socket.socketpair()
            with there:
                assert giver.give(there)
            clients.append(await asyncio.open_connection(sock=here))
        assert giver.open == 3
        for reader, writer in clients[:2]:
            assert await reader.readexactly(5) == b"hello"
            writer.write(b"bye")
            assert await reader.read() == b""
            writer.close()
        while giver.open > 1:
            await asyncio.sleep(0)
        clients[2][1].close()


async def test_nobody_takes() -> None:
    """A taker that fetches nothing is given only so many, and one that is gone is given none."""
    ours, theirs = pair()
    with ours, theirs:
        giver = Giver(ours)
        here, there = socket.socketpair()
        with here, there:
            while giver.give(there):
                assert giver.open < 100_000
            full = giver.open
            theirs.close()
            assert not giver.give(there)
            assert giver.open == full > 0
            await giver.hear()
