"""Servers as processes on loopback, in the virtual environment of the engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from tests.faults.asking import get
from tests.processes import free_port

ENGINES = Path(__file__).parents[2] / ".venv-engines"
MODEL = ENGINES / "model"
NAME = "smol"
"""Name of the model at the gateway, and at the servers that can give it one."""
_READY_TIMEOUT = 180.0


class Server:
    """A server that can be killed and started again at the same port.

    `name` is its own name of the model. `command` is that of the environment, without the port; once the server is
    ready, it returns a JSON value other than an empty one at `ready`.
    """

    name = NAME
    ready = "/v1/models"

    def __init__(self, command: str, *flags: str, environ: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [str(ENGINES / "bin" / command), *flags, "--host", "127.0.0.1", "--port", str(self.port)]
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **self._environ},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while not self._is_ready():
            assert self._process is not None
            assert self._process.poll() is None, self._output()
            assert time.monotonic() < deadline, self._output()
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the server with all its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._log.close()

    def again(self) -> None:
        """Start a server that was killed, without waiting until it is ready."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def _is_ready(self) -> bool:
        try:
            found = get(self.url + self.ready)
        except (OSError, ValueError):
            return False
        return bool(found.get("data", True)) if isinstance(found, dict) else bool(found)

    def _output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-8000:]


S = TypeVar("S", bound=Server)


@contextmanager
def running(servers: Sequence[S]) -> Iterator[Sequence[S]]:
    """Run servers, started together and ready; they are killed at the end of the block."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.close()


def post(url: str, body: Any) -> Any:
    """Send JSON to `url` and return that of the response, whatever its status."""
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=60)) as connection:
        connection.request("POST", address.path, json.dumps(body), {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())
