"""Nodes and upstream servers that flood the gateway do not disturb the streams of others, nor fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from threading import Event

import msgspec
import pytest

from subnet.node.run import SERVING
from tests.faults import programs
from tests.faults.answers import Answer
from tests.faults.asking import Question, ask, connect, send
from tests.processes import until
from tests.security import hostile_nodes, hostile_upstreams
from tests.security.beside import QUESTION, Attack, check_beside

Record = Callable[[str, object], None]

# A frame or an event of the maximum size: in pieces as it arrives, as a whole, and decoded.
MAX_GROWTH = 160 << 20
FLAGS = ("--inter-token-timeout", "1", "--chat-first-token-timeout", "5", "--max-attempts", "1")
SHORT = msgspec.structs.replace(QUESTION, max_tokens=120)


class Floods:
    """A gateway with an honest node, one hostile node of each kind, and a server with a model of each kind."""

    def __init__(self, stack: ExitStack) -> None:
        self._nodes, upstreams = (
            programs.Command(f"tests.security.{name}", ready=SERVING) for name in ("hostile_nodes", "hostile_upstreams")
        )
        for command in (self._nodes, upstreams):
            command.start()
            stack.callback(command.end)
        (honest,) = stack.enter_context(programs.nodes(programs.PACED))
        hostile = [f"subnet={address}" for address in self._nodes.wait().split(",")]
        addresses = [f"subnet={honest.address}", *hostile, f"openai={upstreams.wait()}"]
        self.gateway = stack.enter_context(programs.gateway(addresses, FLAGS, kind=None))
        until(lambda: all(row["state"] == "healthy" for row in self.gateway.table))
        self.expected: Answer = ask(self.gateway.url, SHORT)

    def begin(self, kind: str) -> None:
        """Let the hostile node of this kind flood the gateway, and no other."""
        assert self._nodes.process is not None
        assert self._nodes.process.stdin is not None
        self._nodes.process.stdin.write(f"{kind}\n")
        self._nodes.process.stdin.flush()

    def check(self, kind: str, attack: Attack, record: Record) -> None:
        report = check_beside(attack, self.gateway, max_growth=MAX_GROWTH, question=SHORT, expected=self.expected)
        record("gap", report.gap)
        record("growth", report.growth)
        print(f"{kind}: gap {1000 * report.gap:.0f} ms, growth {report.growth >> 20} MiB")


@pytest.fixture(scope="module")
def floods() -> Iterator[Floods]:
    with ExitStack() as stack:
        yield Floods(stack)


@pytest.mark.parametrize("kind", hostile_nodes.FLOODS)
def test_flooding_node(floods: Floods, kind: str, record_property: Record) -> None:
    """A stream of another node is the same and complete beside a flood of frames, and memory is bounded."""

    def attack(ended: Event) -> None:
        floods.begin(kind)
        ended.wait()
        floods.begin(hostile_nodes.QUIET)

    floods.check(kind, attack, record_property)


@pytest.mark.parametrize("kind", hostile_upstreams.FLOODS)
def test_flooding_upstream(floods: Floods, kind: str, record_property: Record) -> None:
    """A stream of a node is the same and complete beside a flood from a server, and memory is bounded."""

    def attack(ended: Event) -> None:
        while not ended.is_set():
            with closing(connect(floods.gateway.url)) as connection:
                send(connection, Question(model=kind))
                connection.sock.settimeout(0.1)
                has_more = True
                while has_more and not ended.is_set():
                    with suppress(TimeoutError):
                        has_more = bool(connection.sock.recv(1 << 16))

    floods.check(kind, attack, record_property)
