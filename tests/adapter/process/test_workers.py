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
from adapter.process.count_channel import Total
from adapter.process.fd_passing import FdReceiver, FdSender, channel_pair
from adapter.process.workers import Worker
from subnet.errors import SettingsError
from tests.processes import Running, adapter_up, until

FLAGS = ("--engine", "echo", "--concurrency", "64", "--workers", "2")


@contextmanager
def two_workers(directory: Path, *flags: str) -> Iterator[Running]:
    with adapter_up(*FLAGS, *flags, directory=str(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers for tests that leave them as they are."""
    with two_workers(tmp_path_factory.mktemp("shared")) as running:
        yield running


def workers(running: Running) -> dict[int, psutil.Process]:
    children = running.nodes()
    return {child.pid: child for child in children if "adapter.process.worker" in child.cmdline()}


def connections(running: Running) -> Counter[int]:
    """Return the number of client connections of each worker, by process id."""
    port = int(running.url.rpartition(":")[2])
    return Counter(
        pid
        for pid, worker in workers(running).items()
        for connection in worker.net_connections("tcp")
        if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    )


def stream(url: str, tokens: int) -> Iterator[str]:
    """Yield the text of an answer, chunk by chunk."""
    client = OpenAI(base_url=url + "/v1", api_key="any", max_retries=0)
    for chunk in client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "go"}], max_tokens=tokens, seed=3, stream=True
    ):
        yield chunk.choices[0].delta.content or ""


def counted(url: str) -> float:
    """Return the number of requests in /metrics."""
    lines = httpx.get(url + "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("adapter_requests_total{"))


def open_connections(url: str, count: int, stack: ExitStack) -> None:
    """Open `count` connections, send a request on each, and keep them open."""
    for _ in range(count):
        client = stack.enter_context(httpx.Client(base_url=url))
        assert client.get("/healthz").status_code == 200


def test_connections_are_distributed_evenly(shared: Running) -> None:
    """Each of two workers has half of the open connections after others were closed."""
    with ExitStack() as stack:
        open_connections(shared.url, 10, stack)
        with ExitStack() as closed:
            open_connections(shared.url, 7, closed)
        until(lambda: connections(shared).total() == 10)
        open_connections(shared.url, 10, stack)
        assert list(connections(shared).values()) == [10, 10]


def test_workers_list_the_same_models(shared: Running) -> None:
    """Models without a date of their own are as old as the gateway, in each of its workers."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=shared.url)) for _ in range(4)]
        created = [client.get("/v1/models").json()["data"][0]["created"] for client in clients]
        assert len(connections(shared)) == 2
    assert len(set(created)) == 1
    assert created[0] > 1_700_000_000


def test_a_worker_dies(shared: Running) -> None:
    """A killed worker is restarted, the others serve meanwhile, and none of its metrics are lost."""
    before = set(workers(shared))
    for _ in range(10):
        assert httpx.get(shared.url + "/readyz").status_code == 200
    until(lambda: counted(shared.url) >= 10)
    killed = before.pop()
    psutil.Process(killed).kill()
    until(lambda: any("running again" in line for line in shared.lines))
    assert killed not in workers(shared)
    assert before < set(workers(shared))
    assert httpx.get(shared.url + "/readyz").status_code == 200
    until(lambda: counted(shared.url) >= 11)
    ended = next(line for line in shared.lines if "exited" in line)
    assert "exited (signal 9); restarting it in 0.2 s" in ended


def test_sigterm_during_an_answer(tmp_path: Path) -> None:
    """SIGTERM during an answer: /readyz returns 503, the answer is completed, and then all processes exit."""
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
    """Return the status of /readyz, or None if the worker exited during the request."""
    try:
        return httpx.get(url + "/readyz").status_code
    except httpx.TransportError:
        return None


def test_a_second_signal(tmp_path: Path) -> None:
    """A second signal stops running requests and all processes at once."""
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
    """An answer that is not complete by the drain timeout ends with an error event, without [DONE]."""
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
    """Workers and nodes exit when their parent is killed. Nothing is kept in files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with two_workers(tmp_path) as running:
        children = running.nodes()
        assert len(children) == 4
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not list(tmp_path.iterdir())


async def test_a_worker_that_does_not_start() -> None:
    """A worker that exits during startup raises an error with its exit code."""
    worker = Worker("worker 1", Settings(port=-1), Total(), print)
    try:
        with pytest.raises(SettingsError, match=r"^worker 1 did not start: exit code 1$"):
            await worker.start()
    finally:
        await worker.stop()


class Greeter(asyncio.Protocol):
    """Sends a greeting, and closes the connection when it gets data."""

    def __init__(self, receiver: FdReceiver) -> None:
        self._receiver = receiver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"hello")

    def data_received(self, data: bytes) -> None:
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._receiver.report_closed()


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[FdSender, socket.socket, asyncio.Event]]:
    """Yield a sender, the receiver's end of its channel, and an event that is set when the receiver lost the sender."""
    sender_end, receiver_end = channel_pair()
    disconnected = asyncio.Event()
    receiver = FdReceiver(receiver_end)
    receiver.start(lambda: Greeter(receiver), disconnected.set)
    sender = FdSender(sender_end)
    reading = asyncio.create_task(sender.receive_reports())
    try:
        yield sender, receiver_end, disconnected
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        sender_end.close()
        await disconnected.wait()
        receiver_end.close()


async def test_a_passed_connection() -> None:
    """A passed connection is served by the receiver, which reports to the sender when it is closed."""
    async with channel() as (sender, _, _):
        clients = []
        for _ in range(3):
            client_end, server_end = socket.socketpair()
            with server_end:
                assert sender.send(server_end)
            clients.append(await asyncio.open_connection(sock=client_end))
        assert sender.open_connections == 3
        for reader, writer in clients[:2]:
            assert await reader.readexactly(5) == b"hello"
            writer.write(b"bye")
            assert await reader.read() == b""
            writer.close()
        while sender.open_connections > 1:
            await asyncio.sleep(0)
        clients[2][1].close()


async def test_a_full_or_closed_channel() -> None:
    """Sending fails when the channel is full, and when the receiver is gone."""
    sender_end, receiver_end = channel_pair()
    with sender_end, receiver_end:
        sender = FdSender(sender_end)
        client_end, server_end = socket.socketpair()
        with client_end, server_end:
            while sender.send(server_end):
                assert sender.open_connections < 100_000
            full = sender.open_connections
            receiver_end.close()
            assert not sender.send(server_end)
            assert sender.open_connections == full > 0
            await sender.receive_reports()
