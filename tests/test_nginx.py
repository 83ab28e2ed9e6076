"""The example of an nginx in front of two gateways, run with a real nginx."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.faults import programs
from tests.faults.asking import Question, ask
from tests.faults.programs import ROOT, Gateway, Node
from tests.processes import free_port, until

_NGINX = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
pytestmark = pytest.mark.skipif(_NGINX is None, reason="no nginx found: install nginx-light")

_MAIN = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
{user}
events {{}}
http {{
    access_log off;
    gzip on;
    gzip_types *;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
_SLOW = ("subnet.cli", "node", "--engine", "echo", "--concurrency", "64", "--echo-delay", "1", "--echo-rate", "100")


@contextmanager
def nginx(folder: Path, first: str, second: str) -> Iterator[str]:
    """Run nginx with the example in front of two gateways at these addresses, and yield its URL."""
    port = free_port()
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    addresses = {"listen 80;": f"listen 127.0.0.1:{port};", "127.0.0.1:8000": first, "127.0.0.1:8001": second}
    for example, address in addresses.items():
        assert site.count(example) == 1
        site = site.replace(example, address)
    (folder / "site.conf").write_text(site)
    # As root, nginx runs its workers as another user, who cannot write to the folder.
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
    command = [str(_NGINX), "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        Thread(target=lines.extend, args=(process.stderr,), daemon=True).start()
        try:
            until(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, "".join(lines)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with programs.nodes(_SLOW) as (node,):
        yield node


@pytest.fixture(scope="module")
def two(node: Node) -> Iterator[tuple[Gateway, Gateway]]:
    flags = ("--sse-keep-alive", "0.2")
    with programs.gateway([node.address], flags) as first, programs.gateway([node.address], flags) as second:
        yield first, second


def _netloc(gateway: Gateway) -> str:
    return gateway.url.removeprefix("http://")


def test_streams(tmp_path: Path, node: Node, two: tuple[Gateway, Gateway]) -> None:
    """Keep-alives and tokens arrive while the answer is written, uncompressed, and the answer is the gateway's own."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "go"}], "max_tokens": 100, "seed": 7}
    with nginx(tmp_path, *map(_netloc, two)) as url:
        with httpx.stream("POST", url + "/v1/chat/completions", json={**body, "stream": True}) as response:
            assert "content-encoding" not in response.headers
            lines = response.iter_lines()
            assert next(lines) == ": keep-alive"
            assert node.running == 1
            first = next(line for line in lines if '"content":"' in line and '"content":""' not in line)
            assert node.running == 1
            events = [json.loads(line[6:]) for line in (first, *lines) if line.startswith("data: {")]
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        question = Question(stream=False)
        direct, proxied = ask(two[0].url, question), ask(url, question)
        assert direct.complete
        assert direct.outcome == proxied.outcome


def test_a_client_that_leaves(tmp_path: Path, node: Node, two: tuple[Gateway, Gateway]) -> None:
    """nginx takes a client that leaves or half-closes for one that has left, and its node is freed."""
    body = Question(max_tokens=4000).body
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with nginx(tmp_path, *map(_netloc, two)) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for half in (False, True):
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(head.encode() + body)
                until(lambda: node.running == 1)
                client.shutdown(socket.SHUT_WR if half else socket.SHUT_RDWR)
                until(lambda: node.running == 0)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_gateway_ends(end: signal.Signals, tmp_path: Path, node: Node, two: tuple[Gateway, Gateway]) -> None:
    """Before, while and after one of two gateways is shut down or killed, each request is answered by either."""
    statuses: list[int] = []
    ending = Gateway([node.address], ("--shutdown-delay", "0.3"))
    ending.start()
    try:
        ending.wait()
        with nginx(tmp_path, _netloc(ending), _netloc(two[0])) as url, httpx.Client(base_url=url) as client:

            def request() -> None:
                statuses.append(client.post("/tokenize", json={"prompt": "a"}).status_code)

            for _ in range(20):
                request()
            ending.send(end)
            while ending.process is not None and ending.process.poll() is None:
                request()
            for _ in range(20):
                request()
    finally:
        ending.end()
    assert set(statuses) == {200}


def test_what_a_gateway_sees(tmp_path: Path) -> None:
    """The address of the client is the real one, whatever it claims, and operators' paths do not get through."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(20)
        address = f"127.0.0.1:{upstream.getsockname()[1]}"
        with nginx(tmp_path, address, f"127.0.0.1:{free_port()} backup") as url:
            for path in ("/metrics", "//metrics", "/%6detrics", "/nodes/", "/version"):
                assert httpx.get(url + path).status_code == 403
            claims = {"x-forwarded-for": "192.0.2.7", "connection": "keep-alive, x-claim"}
            sender = Thread(target=httpx.get, args=(url + "/v1/models",), kwargs={"headers": claims})
            sender.start()
            connection, _ = upstream.accept()
            with connection:
                received = connection.recv(1 << 16).decode().lower()
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                sender.join()
    assert "x-forwarded-for: 127.0.0.1\r\n" in received
    assert "192.0.2.7" not in received
    assert "\r\nconnection:" not in received
