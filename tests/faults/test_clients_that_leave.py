"""Clients that disconnect at any moment, also while nodes fail: nothing is left on gateway or nodes.

The fixture `pool` checks at the end that no requests, slots, files or threads are left.
"""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from tests.faults import lab
from tests.faults.asking import Question, connect, send
from tests.faults.dying import WAYS, half_open, killed, slow, stopped
from tests.faults.trap import Fault
from tests.processes import until

LONG = Question(max_tokens=1000)


def leave(pool: lab.Pool, *faults: tuple[int, Fault], stream: bool = True) -> None:
    """Send a request, and disconnect once all of `faults` have happened."""
    pool.trap.set(*faults)
    with closing(connect(pool.gateway.url)) as connection:
        send(connection, Question(max_tokens=1000, stream=stream))
        until(lambda: pool.trap.sprung == len(faults))


@pytest.mark.parametrize("stream", [True, False])
def test_before_the_first_token(stream: bool, pool: lab.Pool) -> None:
    """A client that disconnects while its node is slow to send a first token leaves nothing behind."""
    leave(pool, (0, slow), stream=stream)


@pytest.mark.parametrize("tokens", [1, 10, 40])
@pytest.mark.parametrize("stream", [True, False])
def test_mid_answer(tokens: int, stream: bool, pool: lab.Pool) -> None:
    """A client that disconnects in the middle of an answer frees the node's slot at once."""
    leave(pool, (tokens, lambda link: None), stream=stream)
    pool.settle()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_at_the_moment_of_a_fault(way: str, stream: bool, pool: lab.Pool) -> None:
    """A client that disconnects at the moment its node fails leaves nothing behind."""
    leave(pool, (9, WAYS[way]), stream=stream)


@pytest.mark.parametrize("second", [slow, stopped, half_open])
def test_during_a_failover(second: Fault, pool: lab.Pool) -> None:
    """A client that disconnects during a failover, before the second node sends a token, leaves nothing behind."""
    leave(pool, (9, stopped), (0, second))


def test_while_all_nodes_are_lost(pool: lab.Pool) -> None:
    """A client that disconnects while its request waits for a lost node leaves nothing behind."""
    leave(pool, (9, killed), (1, killed), (1, killed))
    until(lambda: not any(row["requests"] for row in pool.gateway.table))


def test_many_at_once_with_a_reset(pool: lab.Pool) -> None:
    """Fifty clients that reset their connections in the middle of their answers leave nothing behind."""
    pool.trap.set((20, lambda link: None))
    connections = [connect(pool.gateway.url) for _ in range(50)]
    for connection in connections:
        send(connection, LONG)
    until(lambda: pool.trap.sprung == 1)
    for connection in connections:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    pool.settle()
