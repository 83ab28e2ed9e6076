"""The gateway as a process: an app on a socket, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from adapter.lifecycle import Life
from adapter.process.fd_passing import Taker
from adapter.server.asgi import ASGIApp
from adapter.server.listener import Listener
from adapter.server.protocol import HttpProtocol
from subnet.errors import SettingsError

# Seconds that uvicorn waits for connections that have no request running.
_CLOSE_TIMEOUT = 2

Ready = Callable[[Sequence[str]], None]
"""Is called with the names of models."""


class _Server(uvicorn.Server):
    """Leaves signals to us: nodes, gateway and sockets end in an order of our own."""

    def __init__(self, config: uvicorn.Config, source: Listener | Taker) -> None:
        super().__init__(config)
        self._source = source

    def take_in(self, on_end: Callable[[], None]) -> None:
        """Serve the connections of the source; `on_end` is called when there can be no more of them."""
        source = self._source
        if isinstance(source, Taker):
            source.start(lambda: _Handed(self, source), on_end)
        else:
            source.start(lambda: HttpProtocol(self.config, self.server_state, {}))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if isinstance(self._source, Listener):
            self._source.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        # In front of what Python adds to the system's words.
        reason = str(error.strerror).partition(" (while")[0]
        hint = "; choose another port with --port" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(f"cannot listen on {host}:{port}: {reason}{hint}") from error


async def serve(
    app: ASGIApp,
    source: socket.socket | Taker,
    life: Life,
    report: Callable[[str], None],
    ready: Callable[[], None],
    *,
    drain_timeout: float,
) -> None:
    """Serve `app` to the connections of `source`, a listening socket or another process, until SIGINT or SIGTERM.

    Running requests then get `drain_timeout` seconds to finish; what still runs after that, or after a second signal,
    is cut with an error event when its session closes. `ready` is called when it serves, `report` gets a line for a
    person at each step after that.
    """
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_CLOSE_TIMEOUT,
    )
    server = _Server(config, Listener(source) if isinstance(source, socket.socket) else source)
    with signals(lambda: _leave(server, life, report, drain_timeout)):
        task = asyncio.create_task(server.serve(sockets=[]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            server.take_in(lambda: _leave(server, life, report, drain_timeout))
            ready()
        await task


class _Handed(HttpProtocol):
    """For a connection that another process accepted, which wants to know when it is over."""

    def __init__(self, server: uvicorn.Server, taker: Taker) -> None:
        super().__init__(server.config, server.server_state, {})
        self._taker = taker

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._taker.over()


def _leave(server: uvicorn.Server, life: Life, report: Callable[[str], None], drain_timeout: float) -> None:
    running = len(server.server_state.tasks)
    if life.leaving:
        return _cut(server)
    if not running:
        server.should_exit = True
        return None
    life.leaving = True
    report(f"finishing {running} running request{'s' if running > 1 else ''}; press Ctrl-C again to stop now")
    asyncio.create_task(_exit_when_idle(server, report, drain_timeout))  # noqa: RUF006 the server outlives it
    return None


async def _exit_when_idle(server: uvicorn.Server, report: Callable[[str], None], drain_timeout: float) -> None:
    # Until then it goes on listening, so that /readyz can say 503.
    try:
        async with asyncio.timeout(drain_timeout):
            while server.server_state.tasks:
                await asyncio.sleep(0.05)
        server.should_exit = True
    except TimeoutError:
        running = len(server.server_state.tasks)
        report(f"drain_timeout of {drain_timeout:g} s reached; {running} request{'s' if running > 1 else ''} stopped")
        _cut(server)


def _cut(server: uvicorn.Server) -> None:
    """Exit without waiting: running requests end with an error when the table of nodes is closed."""
    # What is cut now was cut on purpose: no traceback for each.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    server.force_exit = True
    server.should_exit = True


@contextlib.contextmanager
def signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call it at SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
