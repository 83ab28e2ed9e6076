"""Nodes that flood the gateway with frames do not disturb the streams of other nodes, nor fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event

import msgspec
import pytest

from subnet.node.run import SERVING
from tests.faults import programs
from tests.processes import until
from tests.security.beside import QUESTION, check_beside
from tests.security.hostile_nodes import FLOODS

# A frame of the maximum size, in pieces as it arrives, as a whole, and decoded.
MAX_GROWTH = 160 << 20
FLAGS = ("--health-check-timeout", "1", "--inter-token-timeout", "1")
SHORT = msgspec.structs.replace(QUESTION, max_tokens=120)


class Floods(programs.Command):
    """The process with the hostile nodes, and the gateway that uses them."""

    def __init__(self) -> None:
        super().__init__("tests.security.hostile_nodes", ready=SERVING)
        self.gateway: programs.Gateway

    def begin(self, kind: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind}\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def floods() -> Iterator[Floods]:
    """Run a gateway with an honest node and one of each hostile kind, which are still quiet."""
    made = Floods()
    made.start()
    try:
        with programs.nodes(programs.PACED) as nodes:
            addresses = [nodes[0].address, *made.wait().split(",")]
            with programs.gateway(addresses, FLAGS) as gateway:
                until(lambda: all(row["state"] == "healthy" for row in gateway.table))
                made.gateway = gateway
                yield made
    finally:
        made.end()


@pytest.mark.parametrize("kind", FLOODS)
def test_flooding_node(floods: Floods, kind: str, record_property: Callable[[str, object], None]) -> None:
    """A stream of another node is the same and complete beside a flood of frames, and memory is bounded."""

    def attack(ended: Event) -> None:
        floods.begin(kind)
        ended.wait()

    report = check_beside(attack, floods.gateway, max_growth=MAX_GROWTH, question=SHORT)
    record_property("gap", report.gap)
    record_property("growth", report.growth)
    print(f"{kind}: gap {1000 * report.gap:.0f} ms, growth {report.growth >> 20} MiB")
