"""vLLM's own server as a process on loopback, in the virtual environment of the engines."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tests.faults.asking import Question, ask, get

ENGINES = Path(__file__).parents[2] / ".venv-engines"
MODEL = ENGINES / "model"
NAME = "smol"
CONTEXT = 1024
SEQUENCES = 8
"""Number of answers at once; vLLM queues further requests."""
_READY_TIMEOUT = 180.0
_FLAGS = (
    *("--served-model-name", NAME, "--host", "127.0.0.1", "--enforce-eager", "--dtype", "bfloat16"),
    *("--max-model-len", str(CONTEXT), "--max-num-seqs", str(SEQUENCES), "--enable-prompt-tokens-details"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
_ENVIRON = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmServer:
    """A vLLM that can be killed and started again at the same port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        command = [str(ENGINES / "bin" / "vllm"), "serve", str(MODEL), "--port", str(self._port), *_FLAGS]
        self._process = subprocess.Popen(
            command, env={**os.environ, **_ENVIRON}, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def wait(self) -> None:
        """Wait until it answers, and warm it up: the first logprobs take vLLM many seconds."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while not self._is_ready():
            assert self._process is not None
            assert self._process.poll() is None, self._output()
            assert time.monotonic() < deadline, self._output()
            time.sleep(0.2)
        question = Question(model=NAME, max_tokens=2, stream=False, more={"logprobs": True, "top_logprobs": 2})
        assert ask(self.url, question).status == 200

    def kill(self) -> None:
        """Kill the server with all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._log.close()

    def again(self) -> None:
        """Start a server that was killed, without waiting until it is ready."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all label values but those given."""
        rows = re.findall(rf"^{re.escape(name)}\{{(.*)\}} (\S+)$", _text(self.url + "/metrics"), re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for row, value in rows if all(part in row for part in wanted))

    def _is_ready(self) -> bool:
        try:
            return bool(get(self.url + "/v1/models")["data"])
        except (OSError, ValueError):
            return False

    def _output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-8000:]


def post(url: str, body: Any) -> Any:
    """Send JSON to `url` and return that of the response, whatever its status."""
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=60)) as connection:
        connection.request("POST", address.path, json.dumps(body), {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())


def _text(url: str) -> str:
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request("GET", address.path)
        return connection.getresponse().read().decode()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def vllm_servers(count: int) -> Iterator[list[VllmServer]]:
    """Run servers, started together and ready; they are killed at the end of the block."""
    servers = [VllmServer(free_port()) for _ in range(count)]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.close()
