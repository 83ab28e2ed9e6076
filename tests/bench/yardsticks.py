"""Programs to compare the gateway with: nginx and SMG, which pass the same stream through, and a plain ASGI
application.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.bench.programs import BACK, FRONT, Program, python, running

_CONFIG = """
daemon off;
pid {directory}/pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile 20000;
{user}
events {{ worker_connections 10000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def nginx_path() -> str | None:
    return shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")


def nginx_version(path: str) -> str:
    said = subprocess.run([path, "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2]


@contextmanager
def nginx(path: str, answer: bytes, rate: float) -> Iterator[Program]:
    """Run nginx with one worker on the gateway's core; it passes through what a small upstream on the other
    core sends.
    """
    with replay(answer, rate) as upstream, nginx_before(path, upstream) as program:
        yield program


@contextmanager
def replay(answer: bytes, rate: float, certificate: Path | None = None) -> Iterator[Program]:
    """Run a small server on the core of the load that replays the answer, with a `certificate` over TLS."""
    with tempfile.TemporaryDirectory() as directory:
        recorded = _recorded(Path(directory), answer)
        flags = ["--rate", str(rate), *(["--certificate", str(certificate)] if certificate else [])]
        with running(python("tests.bench.replay", recorded, *flags), [BACK]) as program:
            yield program


@contextmanager
def own_certificate() -> Iterator[Path]:
    """Return a file with a certificate for 127.0.0.1 and its key, made by openssl."""
    subject = ["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command = ["openssl", "req", *kind, *subject, "-keyout", "-", "-out", "-"]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "certificate.pem"
        file.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        yield file


@contextmanager
def nginx_before(path: str, upstream: Program) -> Iterator[Program]:
    """Run nginx with one worker on the gateway's core, in front of `upstream`."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _free_port()
        config = directory / "nginx.conf"
        user = "user root;" if directory.owner() == "root" else ""
        config.write_text(_CONFIG.format(directory=directory, port=port, upstream=upstream.url, user=user))
        command = [path, "-c", str(config), "-p", str(directory), "-e", "stderr"]
        yield stack.enter_context(running(command, [FRONT], url=f"http://127.0.0.1:{port}"))


def smg_path() -> str | None:
    """Return Shepherd Model Gateway's command (`pip install smg`), of this environment or of the user's."""
    return shutil.which("smg", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def smg_version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[1]


def smg_before(path: str, upstream: Program) -> AbstractContextManager[Program]:
    """Run SMG on the gateway's core, in front of `upstream`, without limits of its own."""
    port, metrics = _free_port(), _free_port()
    address = ("--host", "127.0.0.1", "--port", str(port), "--worker-urls", upstream.url)
    own = ("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics), "--log-level", "error")
    command = [path, "launch", *address, *own, "--max-concurrent-requests", "-1"]
    return running(command, [FRONT], url=f"http://127.0.0.1:{port}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def raw_asgi(answer: bytes, rate: float) -> Iterator[Program]:
    """Run a plain ASGI application on uvicorn, on the gateway's core, that sends the stream itself."""
    with tempfile.TemporaryDirectory() as directory:
        recorded = _recorded(Path(directory), answer)
        command = python("tests.bench.replay", recorded, "--rate", str(rate), "--asgi")
        with running(command, [FRONT]) as program:
            yield program


def _recorded(directory: Path, answer: bytes) -> str:
    file = directory / "answer"
    file.write_bytes(answer)
    return str(file)
