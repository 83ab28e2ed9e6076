"""Kills nodes under users of the library: one SIGKILL interrupts many answers, each after a different token."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import msgspec

from tests.faults.dying import KilledUnder
from tests.faults.library import Request, Result, ask, reaching
from tests.faults.programs import Node, nodes
from tests.faults.trap import Trap
from tests.faults.wires import Wires
from tests.processes import until

AHEAD = 2
SECONDS = 60.0
"""Timeout: a round that takes longer has hung."""

Name = tuple[str, str]
"""Feature, and way of sampling."""


class Cuts(msgspec.Struct):
    """The tokens after which the answer's node was killed (`made`), and those of them (`same`) at which the answer
    equalled `whole`, the undisturbed one.
    """

    whole: Result
    made: list[int] = []
    same: list[int] = []

    def __str__(self) -> str:
        return f"{len(self.same)} of {len(self.made)} cuts the same"


class Way:
    """Proxies through which the answers to one request pass: to a node that will be killed, and to one that stays.

    They pass one token at a time, so that a cut can separate choices that a node advances in the same step.
    """

    def __init__(self, wires: Wires, stable: Node) -> None:
        self.trap = Trap()
        self.first = wires.proxy(self.trap, stable)
        self.first.one_by_one = True
        self.second = wires.proxy(Trap(), stable)

    async def ask(self, prompt: list[int], request: Request) -> Result:
        async with reaching(self.first.address, self.second.address) as manager:
            return await ask(manager, prompt, request)


class Killing:
    """Requests with their undisturbed answers (`whole`, requested one after the other) and their proxies."""

    def __init__(self, requests: Mapping[Name, Request], prompt: list[int], stable: Node, wires: Wires) -> None:
        self._requests = requests
        self._prompt = prompt
        self._wires = wires
        self._ways = {name: Way(wires, stable) for name in requests}
        self.whole = asyncio.run(self._undisturbed(stable.address))

    async def _undisturbed(self, address: str) -> dict[Name, Result]:
        async with reaching(address) as manager:
            return {name: await ask(manager, self._prompt, request) for name, request in self._requests.items()}

    def kill(self, node: Node, cuts: Mapping[Name, int]) -> list[Name]:
        """Kill `node` once each answer has the number of tokens in `cuts`; return the names of the answers that are the
        same.
        """
        fault = KilledUnder(len(cuts))
        for name, cut in cuts.items():
            way = self._ways[name]
            way.first.node = node
            way.second.came.clear()
            way.trap.set((cut, fault))
        results = asyncio.run(self._ask(list(cuts)))
        until(lambda: not node.alive)
        assert node.end() == -signal.SIGKILL
        self._wires.heal()
        return [name for name, cut in cuts.items() if self._same(name, results[name], cut)]

    async def _ask(self, names: Sequence[Name]) -> dict[Name, Result]:
        async with asyncio.timeout(SECONDS):
            asked = [self._ways[name].ask(self._prompt, self._requests[name]) for name in names]
            return dict(zip(names, await asyncio.gather(*asked), strict=True))

    def _same(self, name: Name, result: Result, cut: int) -> bool:
        """Whether the answer equals the undisturbed one, and the second node generated only the lost tokens."""
        return result.same(self.whole[name]) and self._ways[name].second.came == Counter(result.order[cut:])


def killed_at(
    requests: Mapping[Name, Request],
    *command: str,
    prompt: list[int],
    cuts: Callable[[int], Sequence[int]],
) -> dict[Name, Cuts]:
    """Run the requests on nodes started with `command` and kill these; `cuts` maps the number of tokens to the cuts."""
    with ExitStack() as stack:
        (stable,) = stack.enter_context(nodes(command))
        wires = Wires()
        stack.callback(wires.close)
        killing = Killing(requests, prompt, stable, wires)
        found = {name: Cuts(whole) for name, whole in killing.whole.items()}
        rounds = _transposed({name: cuts(whole.counted) for name, whole in killing.whole.items()})
        for node, made in zip(_started(stack, command, len(rounds)), rounds, strict=True):
            same = killing.kill(node, made)
            for name, cut in made.items():
                found[name].made.append(cut)
                found[name].same += [cut] if name in same else []
    return found


def _transposed(cuts: Mapping[Name, Sequence[int]]) -> list[dict[Name, int]]:
    """Return the first cut of each request, the second of each that has one, and so on."""
    most = max(map(len, cuts.values()))
    return [{name: mine[number] for name, mine in cuts.items() if number < len(mine)} for number in range(most)]


def _started(stack: ExitStack, command: Sequence[str], count: int) -> Iterator[Node]:
    """Yield `count` started nodes one after the other; the next ones start in the background."""
    ahead: deque[Node] = deque()
    for number in range(count + AHEAD):
        if number < count:
            node = Node(*command)
            node.start()
            stack.callback(node.end)
            ahead.append(node)
        if number >= AHEAD:
            ahead[0].wait()
            yield ahead.popleft()
