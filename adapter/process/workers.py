"""Several gateway processes behind one address, with connections distributed evenly."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence

import msgspec

from adapter.config import Settings
from adapter.lifecycle import Lifecycle
from adapter.process.count_channel import Total
from adapter.process.fd_passing import FdSender, channel_pair
from adapter.process.serve import Ready
from adapter.process.supervisor import Report, SupervisedProcess
from subnet.errors import SettingsError
from subnet.signals import handle_signals

# Seconds until the next attempt when no worker can receive connections.
_RETRY_DELAY = 0.02
# Limit per event loop iteration.
_MAX_ACCEPTS = 64
_MAX_MESSAGE = 1 << 16


class WorkerConfig(msgspec.Struct, frozen=True):
    """First message to a worker, as JSON. It answers with the list of its models when it serves.

    All workers detect the same nodes, so only the one with `reports_nodes` prints them. `started` is when the first of
    them started. `counts` is the file descriptor of the socket over which it sends its counts.
    """

    name: str
    settings: Settings
    counts: int
    reports_nodes: bool = True
    started: int = 0


class Worker(SupervisedProcess):
    """Gateway process, see worker.py. Its output is not captured."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        total: Total,
        report: Report,
        *,
        reports_nodes: bool = True,
        started: int = 0,
    ) -> None:
        """`total` has the counts of all workers, also of those that have exited."""
        super().__init__(name, report)
        self._settings = settings
        self._reports_nodes = reports_nodes
        self._started = started
        self._total = total
        self._counting: asyncio.Task[None] | None = None
        self._sender: FdSender | None = None
        self._channel: socket.socket | None = None
        self._models: list[str] = []

    @property
    def open_connections(self) -> int:
        return 0 if self._sender is None else self._sender.open_connections

    async def start(self) -> list[str]:
        """Start the process, and return its models once it serves. Raises SettingsError if it exits before."""
        await self._launch()
        if self._sender is None:
            raise SettingsError(f"{self.name} did not start: {self._exit_reason()}")
        self._start_supervision()
        return self._models

    def send(self, connection: socket.socket) -> bool:
        """Pass `connection` to the worker. Returns False if it cannot receive one now."""
        return self._sender is not None and self._sender.send(connection)

    def drain(self) -> None:
        """Send SIGTERM, and do not restart the process. It finishes its running requests first; a second call makes it
        exit at once.
        """
        if self._supervision is not None:
            self._supervision.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def wait(self) -> None:
        """Wait until the process has exited, after `drain`."""
        await self._stop_supervision()
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        await super().stop()
        self._close_channel()
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _launch(self) -> str:
        self._close_channel()
        self._channel, receiver = channel_pair()
        counts, far_end = socket.socketpair()
        self._counting = asyncio.create_task(self._total.receive(counts))
        with receiver, far_end:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "adapter.process.worker"),
                stdin=receiver.fileno(),
                pass_fds=(far_end.fileno(),),
                start_new_session=True,
            )
            config = WorkerConfig(self.name, self._settings, far_end.fileno(), self._reports_nodes, self._started)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._channel, msgspec.json.encode(config))
            models = await loop.sock_recv(self._channel, _MAX_MESSAGE)
        except ConnectionError:
            models = b""
        if not models:
            await self._process.wait()
            return "did not start"
        self._models = msgspec.json.decode(models, type=list[str])
        self._sender = FdSender(self._channel)
        return "running again"

    async def _follow(self) -> None:
        assert self._process is not None
        if self._sender is not None:
            await self._sender.receive_reports()
            self._sender = None
        await self._process.wait()

    def _close_channel(self) -> None:
        self._sender = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None


async def serve(settings: Settings, listener: socket.socket, report: Report, ready: Ready) -> None:
    """Serve with `settings.workers` processes until SIGINT or SIGTERM. Running requests then finish; a second signal
    stops them at once. `ready` is called with the models when all workers serve. Raises SettingsError if one does not
    start.
    """
    started = Lifecycle().started
    total = Total()
    workers = [
        Worker(f"worker {n + 1}", settings, total, report, reports_nodes=n == 0, started=started)
        for n in range(settings.workers)
    ]
    try:
        models = await asyncio.gather(*(worker.start() for worker in workers))
        with handle_signals(lambda: _drain(workers, signalled), report), _Dispatcher(listener, workers):
            signalled = asyncio.Event()
            ready(models[0])
            await signalled.wait()
            await asyncio.gather(*(worker.wait() for worker in workers))
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))


def _drain(workers: Sequence[Worker], signalled: asyncio.Event) -> None:
    signalled.set()
    for worker in workers:
        worker.drain()


class _Dispatcher:
    """Passes each connection accepted at `listener` to the worker with the fewest open connections.

    If workers shared a socket, or had one each (SO_REUSEPORT), the kernel would distribute connections without regard
    to how many each worker has: of 64 connections, one of two workers got 49 and 35 on average, respectively.
    """

    def __init__(self, listener: socket.socket, workers: Sequence[Worker]) -> None:
        self._listener = listener
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._pending: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._listener.setblocking(False)
        self._listen()

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        if self._pending is not None:
            self._pending.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                self._pending = self._pending or self._listener.accept()[0]
            except OSError:
                # No more connections wait, or the process has no file descriptors left for the moment.
                return
            if not self._dispatch(self._pending):
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(_RETRY_DELAY, self._listen)
                return
            self._pending.close()
            self._pending = None

    def _dispatch(self, connection: socket.socket) -> bool:
        candidates = sorted(self._workers, key=lambda worker: worker.open_connections)
        return any(worker.send(connection) for worker in candidates)
