"""Fault that kills a node and restarts it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.faults import lab, programs
from tests.faults.dying import killed
from tests.faults.proxy import Link
from tests.faults.trap import Fault


@contextmanager
def revived(pool: lab.Pool) -> Iterator[Fault]:
    """Yield a fault that kills a node and restarts it at once at the same address."""
    with ThreadPoolExecutor(1) as starter:

        def fault(link: Link) -> None:
            killed(link)
            starter.submit(revive, next(node for node in pool.nodes if node is link.proxy.node))

        yield fault


def revive(node: programs.Node) -> None:
    node.again()
    node.wait()
