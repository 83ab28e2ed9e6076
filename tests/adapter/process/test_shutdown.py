"""Shutdown of a gateway behind a load balancer."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.faults import programs
from tests.faults.asking import Question, ask
from tests.faults.programs import Gateway, Node
from tests.processes import until


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with programs.nodes(programs.PACED) as (node,):
        yield node


def _statuses(client: httpx.Client) -> tuple[int, str]:
    response = client.get("/readyz")
    return response.status_code, response.headers.get("connection", "")


def _raw(gateway: Gateway, head: bytes) -> bytes:
    """Return everything that the gateway sends until it closes the connection."""
    address = urlsplit(gateway.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_the_delay(node: Node) -> None:
    """An idle gateway is not ready for a while, closes connections after each response, serves, and then exits."""
    flags = ("--shutdown-delay", "1", "--workers", "2")
    with programs.gateway([node.address], flags) as gateway, httpx.Client(base_url=gateway.url) as kept:
        whole = ask(gateway.url, Question())
        assert _statuses(kept) == (200, "")
        gateway.send(signal.SIGTERM)
        until(lambda: httpx.get(gateway.url + "/readyz").status_code == 503)
        assert _statuses(kept) == (503, "close")
        refused = _raw(
            gateway, b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: x, chunked\r\n\r\n"
        )
        assert refused.count(b"connection: close\r\n") == 1
        # Longer than the delay: it is completed nevertheless.
        answer = ask(gateway.url, Question(max_tokens=300))
        assert answer.complete
        assert "".join(answer.texts).startswith("".join(whole.texts[:10]))
        assert answer.headers["connection"] == "close"
        assert gateway.process is not None
        assert gateway.process.wait(20) == 0
    assert sum("shutting down in 1 s" in line for line in gateway.lines) == 2
    assert not any("drain_timeout" in line for line in gateway.lines)


def test_the_drain_timeout_follows_the_delay(node: Node) -> None:
    """An answer that still runs after both is stopped with an error, and the gateway exits."""
    flags = ("--shutdown-delay", "0.5", "--drain-timeout", "0.2")
    with programs.gateway([node.address], flags) as gateway:

        def stop(count: int) -> None:
            if count == 3:
                gateway.send(signal.SIGTERM)

        answer = ask(gateway.url, Question(max_tokens=4000), stop)
        assert not answer.complete
        assert gateway.process is not None
        assert gateway.process.wait(20) == 0
    assert any("drain_timeout of 0.2 s reached; 1 request stopped" in line for line in gateway.lines)


def test_a_second_signal_and_idle_connections(node: Node) -> None:
    """A second signal during the delay ends the gateway at once. Before, idle connections are closed by its timeout."""
    flags = ("--shutdown-delay", "600", "--client-idle-timeout", "0.3")
    with programs.gateway([node.address], flags) as gateway:
        with httpx.Client(base_url=gateway.url) as kept:
            assert _statuses(kept) == (200, "")
            stream = kept.get("/healthz").extensions["network_stream"]
            assert stream.read(1, timeout=20) == b""
        gateway.send(signal.SIGINT)
        until(lambda: httpx.get(gateway.url + "/readyz").status_code == 503)
        gateway.send(signal.SIGINT)
        assert gateway.process is not None
        assert gateway.process.wait(20) == 0
