"""HTTP server of a gateway process: serves an app until a signal, then drains."""

from __future__ import annotations

import asyncio
import contextlib
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


async def serve(
    app: ASGIApp,
    source: socket.socket | FdReceiver,
    lifecycle: Lifecycle,
    report: Callable[[str], None],
    ready: Callable[[], None],
    *,
    shutdown_delay: float,
    drain_timeout: float,
    idle_timeout: float,
    connections: Connections,
) -> None:
    """Serve `app` to the connections of `source`, a listening socket or another process, until a signal to stop.
    They are added to `connections`.

    For `shutdown_delay` seconds it then goes on, draining. After that, running requests get `drain_timeout` seconds to
    finish. Those that still run then, or after a second signal, end with an error event when their session is closed.
    Connections without a request are closed after `idle_timeout` seconds.

    `ready` is called when the server accepts connections. `report` gets a line for each later step. Raises
    SettingsError for an unsupported version of uvicorn.
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
        timeout_keep_alive=idle_timeout,  # type: ignore[arg-type] # a delay of the event loop
        timeout_graceful_shutdown=_CLOSE_TIMEOUT,
    )
    server = _Server(config, Listener(source) if isinstance(source, socket.socket) else source, connections)
    shutdown = _Shutdown(server, lifecycle, report, shutdown_delay, drain_timeout)
    with handle_signals(shutdown.start, report):
        task = asyncio.create_task(server.serve(sockets=[]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            server.accept_connections(shutdown.start)
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


class _Shutdown:
    """Ends `server`, which still accepts connections meanwhile, so that /readyz can return 503."""

    def __init__(
        self,
        server: uvicorn.Server,
        lifecycle: Lifecycle,
        report: Callable[[str], None],
        delay: float,
        drain_timeout: float,
    ) -> None:
        self._server = server
        self._lifecycle = lifecycle
        self._report = report
        self._delay = delay
        self._drain_timeout = drain_timeout
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to shut down; if that has begun, exit without waiting."""
        if self._lifecycle.draining:
            self._exit_now()
            return
        self._lifecycle.draining = True
        if self._delay or self._server.server_state.tasks:
            self._task = asyncio.create_task(self._drain())
        else:
            self._server.should_exit = True

    async def _drain(self) -> None:
        if self._delay:
            self._report(f"shutting down in {self._delay:g} s; press Ctrl-C again to stop now")
            await asyncio.sleep(self._delay)
        if self._server.server_state.tasks:
            self._report(f"finishing {self._running()}; press Ctrl-C again to stop now")
        try:
            async with asyncio.timeout(self._drain_timeout):
                while self._server.server_state.tasks:
                    await asyncio.sleep(0.05)
            self._server.should_exit = True
        except TimeoutError:
            self._report(f"drain_timeout of {self._drain_timeout:g} s reached; {self._running('')} stopped")
            self._exit_now()

    def _running(self, kind: str = "running ") -> str:
        count = len(self._server.server_state.tasks)
        return f"{count} {kind}request{'s' if count > 1 else ''}"

    def _exit_now(self) -> None:
        """Exit without waiting. Running requests end with an error when the RemoteManager is closed."""
        # These requests are stopped on purpose: no traceback for each of them.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        self._server.force_exit = True
        self._server.should_exit = True
