"""Several gateway processes behind one address."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import msgspec

from adapter.config import Settings
from adapter.process.fd_passing import Giver, pair
from adapter.process.serve import Ready, signals
from adapter.process.supervisor import Kept, Report
from subnet.errors import SettingsError

# How long connections wait when no worker takes any, in seconds.
_PAUSE = 0.02
_AT_ONCE = 64
_LARGEST = 1 << 16


class Start(msgspec.Struct, frozen=True):
    """What a worker is told first, as JSON. It answers with a list of the models that it knows, when it serves. All
    find the same nodes: only the one that `tells` says so.
    """

    name: str
    settings: Settings
    tells: bool = True


class Worker(Kept):
    """One gateway process, see adapter/process/worker.py; its output is its own."""

    def __init__(self, name: str, settings: Settings, metrics: str, report: Report, *, tells: bool = True) -> None:
        super().__init__(name, report)
        self._start = msgspec.json.encode(Start(name, settings, tells))
        self._environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": metrics}
        self._giver: Giver | None = None
        self._channel: socket.socket | None = None
        self._models: list[str] = []

    @property
    def open(self) -> int:
        """The connections that it has."""
        return 0 if self._giver is None else self._giver.open

    async def start(self) -> list[str]:
        """Start it, and wait until it serves; the models it knows. Raises SettingsError when it does not."""
        await self._launch()
        if self._giver is None:
            raise SettingsError(f"{self.name} did not start: {self._ending()}")
        self._keep()
        return self._models

    def take(self, connection: socket.socket) -> bool:
        """Hand it `connection`; False when it cannot take one now."""
        return self._giver is not None and self._giver.give(connection)

    def leave(self) -> None:
        """Let its running answers finish, and do not start it again; called once more, it ends at once."""
        if self._watch is not None:
            self._watch.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def left(self) -> None:
        """When it has ended, after `leave`."""
        await self._unwatch()
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        await super().stop()
        self._hang_up()

    async def _launch(self) -> str:
        self._hang_up()
        self._channel, theirs = pair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "adapter.process.worker"),
                stdin=theirs.fileno(),
                env=self._environ,
                start_new_session=True,
            )
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._channel, self._start)
            said = await loop.sock_recv(self._channel, _LARGEST)
        except ConnectionError:
            said = b""
        if not said:
            await self._process.wait()
            return "did not start"
        self._models = msgspec.json.decode(said, type=list[str])
        self._giver = Giver(self._channel)
        return "running again"

    async def _follow(self) -> None:
        assert self._process is not None
        if self._giver is not None:
            await self._giver.hear()
            self._giver = None
        await self._process.wait()

    def _hang_up(self) -> None:
        self._giver = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None


async def serve(settings: Settings, listener: socket.socket, report: Report, ready: Ready) -> None:
    """Serve with `settings.workers` processes until SIGINT or SIGTERM; then running answers finish, and a second signal
    ends them at once. `ready` is called with the models when all serve. Raises SettingsError.
    """
    with TemporaryDirectory(prefix="adapter-metrics-") as metrics:
        workers = [Worker(f"worker {n + 1}", settings, metrics, report, tells=n == 0) for n in range(settings.workers)]
        try:
            models = await asyncio.gather(*(worker.start() for worker in workers))
            with signals(lambda: _leave(workers, over)), _Dealer(listener, workers):
                over = asyncio.Event()
                ready(models[0])
                await over.wait()
                await asyncio.gather(*(worker.left() for worker in workers))
        finally:
            await asyncio.gather(*(worker.stop() for worker in workers))


def _leave(workers: Sequence[Worker], over: asyncio.Event) -> None:
    over.set()
    for worker in workers:
        worker.leave()


class _Dealer:
    """Deals the connections at `listener` out: each to the worker that has fewest.

    With a socket that workers share, or one each (SO_REUSEPORT), the kernel chooses who gets a connection, and it does
    not look how many each has: of 64, one worker of two got 49 or 35 on average.
    """

    def __init__(self, listener: socket.socket, workers: Sequence[Worker]) -> None:
        self._listener = listener
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._held: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._listener.setblocking(False)
        self._listen()

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        if self._held is not None:
            self._held.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._deal)

    def _deal(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                self._held = self._held or self._listener.accept()[0]
            except OSError:
                # Nobody is there any more, or the process is out of descriptors for a moment.
                return
            if not self._dealt(self._held):
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE, self._listen)
                return
            self._held.close()
            self._held = None

    def _dealt(self, connection: socket.socket) -> bool:
        return any(worker.take(connection) for worker in sorted(self._workers, key=lambda worker: worker.open))
