"""Pool of nodes behind proxies, with a gateway in front, in which tests cause faults."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

from tests.faults.answers import Answer
from tests.faults.asking import Question, ask
from tests.faults.programs import QUICK, Gateway, Node, gateway, nodes
from tests.faults.trap import Fault, Trap
from tests.faults.wires import Wires
from tests.processes import until

NOTHING = {"requests": 0, "slots": 0, "files": 0, "threads": 0}


class Pool:
    """Nodes, each behind a proxy, and a gateway in front. `trap` has the planned faults."""

    def __init__(self, gateway: Gateway, nodes: Sequence[Node], trap: Trap, wires: Wires) -> None:
        self.gateway = gateway
        self.nodes = nodes
        self.trap = trap
        self._wires = wires
        self._held = (0, 0)

    @property
    def model(self) -> str:
        return str(self.gateway.table[0]["model"])

    def ask(self, question: Question) -> Answer:
        return ask(self.gateway.url, question)

    def ask_through(self, question: Question, *faults: tuple[int, Fault]) -> Answer:
        """Return the answer to a question while `faults` happen, each after a number of tokens since the one before.
        All must happen.
        """
        (answer,) = self.ask_all_through([question], *faults)
        return answer

    def ask_all_through(self, questions: Sequence[Question], *faults: tuple[int, Fault]) -> list[Answer]:
        """Ask several questions at once while `faults` happen; tokens are counted of the answer that has most."""
        self.trap.set(*faults)
        with ThreadPoolExecutor(len(questions)) as clients:
            answers = list(clients.map(self.ask, questions))
        with suppress(AssertionError):
            until(lambda: self.trap.sprung == len(faults), 1.0)
        assert self.trap.sprung == len(faults), f"{self.trap.sprung} of {len(faults)} faults happened"
        return answers

    def heal(self) -> None:
        """Restore the initial state. Fails if something is left behind."""
        self.mend()
        self.settle()

    def mend(self) -> None:
        """Restart dead nodes, continue stopped ones, and wait until the gateway considers all healthy."""
        self.trap.set()
        dead = [node for node in self.nodes if not node.alive]
        for node in dead:
            node.again()
        for node in self.nodes:
            node.send(signal.SIGCONT)
        for node in dead:
            node.wait()
        self._wires.heal()
        self._await_health()
        # Successful answers in between, as in a normal pool, so that breakers stay closed.
        for _ in self.nodes:
            self.ask(Question(model=self.model, max_tokens=1))

    def settle(self) -> None:
        """Wait until no request, slot, file or thread is left. Fails with what is left."""
        seen: list[dict[str, int]] = []

        def settled() -> bool:
            seen.append(self.left)
            return seen[-1] == NOTHING

        with suppress(AssertionError):
            until(settled, 10.0)
        assert seen[-1] == NOTHING, f"left behind: {seen[-1]}"

    def warm_up(self) -> None:
        """Create everything that is created on first use, and record the open files and threads."""
        self._await_health()
        for _ in self.nodes:
            assert self.ask(Question(model=self.model, max_tokens=2)).complete
        self._held = self.gateway.held

    def _await_health(self) -> None:
        with suppress(AssertionError):
            until(self._well)
        assert self._well(), f"{self.gateway.table}{''.join(self.gateway.lines[-20:])}"

    def _well(self) -> bool:
        """Whether every node is healthy. A node with a half-open breaker gets a request, as it would not recover
        without one.
        """
        states = {row["state"] for row in self.gateway.table}
        if "breaker-half-open" in states:
            self.ask(Question(model=self.model, max_tokens=1))
        return states == {"healthy"}

    @property
    def left(self) -> dict[str, int]:
        """Requests and slots in use, and open files and threads above the number after warm-up."""
        files, threads = self.gateway.held
        return {
            "requests": sum(row["requests"] for row in self.gateway.table),
            "slots": sum(node.running for node in self.nodes),
            "files": max(0, files - self._held[0]),
            "threads": max(0, threads - self._held[1]),
        }


@contextmanager
def pool(*commands: Sequence[str], flags: Sequence[str] = QUICK, one_by_one: bool = False) -> Iterator[Pool]:
    """Run a node for each command line, proxies and a gateway, and warm them up. `one_by_one`: see Proxy."""
    trap, wires = Trap(), Wires()
    with ExitStack() as stack:
        made = stack.enter_context(nodes(*commands))
        stack.callback(wires.close)
        proxies = [wires.proxy(trap, node) for node in made]
        for proxy in proxies:
            proxy.one_by_one = one_by_one
        front = stack.enter_context(gateway([proxy.address for proxy in proxies], flags))
        whole = Pool(front, made, trap, wires)
        whole.warm_up()
        yield whole
