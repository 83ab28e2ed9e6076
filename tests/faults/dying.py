"""Faults of a node, each applied to the connection that carries the answer."""

from __future__ import annotations

import signal
from functools import partial

import msgspec

from subnet.wire import frames
from subnet.wire.messages import Deltas
from tests.faults.proxy import Link
from tests.faults.sockets import close, reset
from tests.faults.trap import Fault

LATE = 30.0
"""Seconds: longer than any timeout in these tests."""


def killed(link: Link) -> None:
    """Kill the node; what it sent last is lost."""
    link.proxy.node.end()
    link.cut(close)


class KilledUnder:
    """Fault that stops the traffic of each of `links` connections, and at the last one kills their node."""

    def __init__(self, links: int) -> None:
        self._missing = links
        self._held: list[Link] = []

    def __call__(self, link: Link) -> None:
        half_open(link)
        self._held.append(link)
        self._missing -= 1
        if not self._missing:
            for held in self._held:
                killed(held)


def stopped(link: Link) -> None:
    """Stop the process: its sockets stay open, but it is silent."""
    link.proxy.node.send(signal.SIGSTOP)


def broken_engine(link: Link) -> None:
    """Fail the engine, so that the node sends an error frame; only for nodes of `breakable`."""
    link.proxy.node.send(signal.SIGUSR1)


def connection_reset(link: Link) -> None:
    link.cut(reset)


def connection_closed(link: Link) -> None:
    """Close the connection with FIN, without a WebSocket close frame."""
    link.cut(close)


def half_open(link: Link) -> None:
    """Stop all traffic without closing any connection."""
    link.proxy.flowing.clear()


def slow(link: Link) -> None:
    """Delay tokens beyond the timeout; the node still answers pings."""
    link.proxy.delay = LATE


def crawling(link: Link) -> None:
    """Pass one byte every 0.2 s."""
    link.proxy.drip = 0.2


def foreign_bytes(link: Link) -> None:
    """Send bytes that are not a WebSocket frame."""
    link.to_gateway.write(b"\xff\xff" * 20)


def _mangled(link: Link, *, how: str) -> None:
    link.proxy.mangle = partial(_mangle, how)


def _mangle(how: str, payload: bytes) -> bytes:
    if how == "noise":
        return bytes(byte ^ 0x5A for byte in payload)
    if how == "version":
        return b"\x63" + payload[1:]
    message = frames.decode(payload)
    assert isinstance(message, Deltas)
    return frames.encode(msgspec.structs.replace(message, tokens=message.tokens[1:]))


mangled_bytes = partial(_mangled, how="noise")
other_version = partial(_mangled, how="version")
wrong_columns = partial(_mangled, how="columns")

WAYS: dict[str, Fault] = {
    "killed with SIGKILL": killed,
    "stopped with SIGSTOP": stopped,
    "connection reset": connection_reset,
    "connection closed": connection_closed,
    "half-open connection": half_open,
    "slows down to nothing": slow,
    "slows down to a crawl": crawling,
    "bytes of no frame": foreign_bytes,
    "mangled frame": mangled_bytes,
    "frame of another version": other_version,
    "columns that disagree": wrong_columns,
}
