"""HTTP server of a gateway process: serves an app until a signal, then drains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from adapter.lifecycle import Lifecycle
from adapter.process.fd_passing import FdReceiver
from adapter.server.asgi import ASGIApp
from adapter.server.connections import Connections
from adapter.server.listener import Listener
from adapter.server.protocol import HttpProtocol
from adapter.server.uvicorn_check import check_uvicorn
from subnet.errors import SettingsError
from subnet.signals import handle_signals

# Seconds that uvicorn waits for the clients of idle connections to close them.
_CLOSE_TIMEOUT = 2

Ready = Callable[[Sequence[str]], None]
"""Called with the names of the models when the gateway serves."""


class _Server(uvicorn.Server):
    """uvicorn server with its own source of connections, which leaves signals to `serve`: nodes, gateway and sockets
    must be closed in a certain order.
    """

    def __init__(self, config: uvicorn.Config, source: Listener | FdReceiver, connections: Connections) -> None:
        super().__init__(config)
        self.accepted = connections
        self._source = source

    def accept_connections(self, on_end: Callable[[], None]) -> None:
        """Serve the connections of the source. Calls `on_end` when there can be no more of them."""
        source = self._source
        if isinstance(source, FdReceiver):
            source.start(lambda: _PassedHttpProtocol(self, source), on_end)
        else:
            source.start(lambda: HttpProtocol(self.config, self.server_state, {}, accepted=self.accepted))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if isinstance(self._source, Listener):
            self._source.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises SettingsError if the address is in use or invalid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        # Python appends "(while attempting to bind on address ...)" to the system's message.
        reason = str(error.strerror).partition(" (while")[0]
        hint = "; choose another port with --port" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(f"cannot listen on {host}:{port}: {reason}{hint}") from error


async def serve(
    app: ASGIApp,
    source: socket.socket | FdReceiver,
    lifecycle: Lifecycle,
    report: Callable[[str], None],
    ready: Callable[[], None],
    *,
    drain_timeout: float,
    connections: Connections,
) -> None:
    """Serve `app` to the connections of `source`, a listening socket or another process, until a signal to stop.
    They are added to `connections`.

    Running requests then get `drain_timeout` seconds to finish. Those that still run after that, or after a second
    signal, end with an error event when their session is closed. `ready` is called when the server accepts connections.
    `report` gets a line for each later step. Raises SettingsError for an unsupported version of uvicorn.
    """
    check_uvicorn()
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
    server = _Server(config, Listener(source) if isinstance(source, socket.socket) else source, connections)
    with handle_signals(lambda: _drain(server, lifecycle, report, drain_timeout), report):
        task = asyncio.create_task(server.serve(sockets=[]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            server.accept_connections(lambda: _drain(server, lifecycle, report, drain_timeout))
            ready()
        await task


class _PassedHttpProtocol(HttpProtocol):
    """Protocol of a connection that another process accepted. Reports to that process when the connection is closed."""

    def __init__(self, server: _Server, receiver: FdReceiver) -> None:
        super().__init__(server.config, server.server_state, {}, accepted=server.accepted)
        self._receiver = receiver

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._receiver.report_closed()


def _drain(server: uvicorn.Server, lifecycle: Lifecycle, report: Callable[[str], None], drain_timeout: float) -> None:
    running = len(server.server_state.tasks)
    if lifecycle.draining:
        return _exit_now(server)
    if not running:
        server.should_exit = True
        return None
    lifecycle.draining = True
    report(f"finishing {running} running request{'s' if running > 1 else ''}; press Ctrl-C again to stop now")
    asyncio.create_task(_exit_when_idle(server, report, drain_timeout))  # noqa: RUF006 the server outlives it
    return None


async def _exit_when_idle(server: uvicorn.Server, report: Callable[[str], None], drain_timeout: float) -> None:
    # The server still accepts connections meanwhile, so that /readyz can return 503.
    try:
        async with asyncio.timeout(drain_timeout):
            while server.server_state.tasks:
                await asyncio.sleep(0.05)
        server.should_exit = True
    except TimeoutError:
        running = len(server.server_state.tasks)
        report(f"drain_timeout of {drain_timeout:g} s reached; {running} request{'s' if running > 1 else ''} stopped")
        _exit_now(server)


def _exit_now(server: uvicorn.Server) -> None:
    """Exit without waiting. Running requests end with an error when the RemoteManager is closed."""
    # These requests are stopped on purpose: no traceback for each of them.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    server.force_exit = True
    server.should_exit = True
