"""Kills nodes under users of the library: one kill -9 cuts many answers, each after a token of its own."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import msgspec

from tests.faults.dying import KilledUnder
from tests.faults.library import Told, Wish, ask, reaching
from tests.faults.programs import Node, nodes
from tests.faults.trap import Trap
from tests.faults.wires import Wires
from tests.processes import until

AHEAD = 2
SECONDS = 60.0
"""No round takes longer: what does has hung."""

Name = tuple[str, str]
"""Feature, and how it was drawn."""


class Cuts(msgspec.Struct):
    """After which tokens answers were `made` to lose their node, and at which of these cuts they were the `same` as
    the `whole`, which nothing happened to.
    """

    whole: Told
    made: list[int] = []
    same: list[int] = []

    def __str__(self) -> str:
        return f"{len(self.same)} of {len(self.made)} cuts the same"


class Way:
    """By which the answers to one wish come: from a node that will die, or else from one that stays.

    They pass one token at a time, so that a cut can part choices that a node advances in the same step.
    """

    def __init__(self, wires: Wires, stable: Node) -> None:
        self.trap = Trap()
        self.first = wires.proxy(self.trap, stable)
        self.first.one_by_one = True
        self.second = wires.proxy(Trap(), stable)

    async def ask(self, prompt: list[int], wish: Wish) -> Told:
        async with reaching(self.first.address, self.second.address) as manager:
            return await ask(manager, prompt, wish)


class Killing:
    """`wishes`, what is told of them when nothing happens (`whole`, asked one after the other), and a way for each."""

    def __init__(self, wishes: Mapping[Name, Wish], prompt: list[int], stable: Node, wires: Wires) -> None:
        self._wishes = wishes
        self._prompt = prompt
        self._wires = wires
        self._ways = {name: Way(wires, stable) for name in wishes}
        self.whole = asyncio.run(self._undisturbed(stable.address))

    async def _undisturbed(self, address: str) -> dict[Name, Told]:
        async with reaching(address) as manager:
            return {name: await ask(manager, self._prompt, wish) for name, wish in self._wishes.items()}

    def kill(self, node: Node, cuts: Mapping[Name, int]) -> list[Name]:
        """Kill `node` once each answer has had as many tokens as `cuts` says; the names of those that are the same."""
        fault = KilledUnder(len(cuts))
        for name, cut in cuts.items():
            way = self._ways[name]
            way.first.node = node
            way.second.came.clear()
            way.trap.set((cut, fault))
        told = asyncio.run(self._ask(list(cuts)))
        until(lambda: not node.alive)
        assert node.end() == -signal.SIGKILL
        self._wires.heal()
        return [name for name, cut in cuts.items() if self._same(name, told[name], cut)]

    async def _ask(self, names: Sequence[Name]) -> dict[Name, Told]:
        async with asyncio.timeout(SECONDS):
            asked = [self._ways[name].ask(self._prompt, self._wishes[name]) for name in names]
            return dict(zip(names, await asyncio.gather(*asked), strict=True))

    def _same(self, name: Name, told: Told, cut: int) -> bool:
        """As undisturbed; and the second node was asked for what was lost and for nothing else."""
        return told.same(self.whole[name]) and self._ways[name].second.came == Counter(told.order[cut:])


def killed_at(
    wishes: Mapping[Name, Wish],
    *command: str,
    prompt: list[int],
    cuts: Callable[[int], Sequence[int]],
) -> dict[Name, Cuts]:
    """What becomes of answers of nodes that `command` starts; `cuts` says where to cut one of so many tokens."""
    with ExitStack() as stack:
        (stable,) = stack.enter_context(nodes(command))
        wires = Wires()
        stack.callback(wires.close)
        killing = Killing(wishes, prompt, stable, wires)
        found = {name: Cuts(whole) for name, whole in killing.whole.items()}
        rounds = _transposed({name: cuts(whole.counted) for name, whole in killing.whole.items()})
        for node, made in zip(_started(stack, command, len(rounds)), rounds, strict=True):
            same = killing.kill(node, made)
            for name, cut in made.items():
                found[name].made.append(cut)
                found[name].same += [cut] if name in same else []
    return found


def _transposed(cuts: Mapping[Name, Sequence[int]]) -> list[dict[Name, int]]:
    """The first cut of each, the second of each that has one, and so on."""
    most = max(map(len, cuts.values()))
    return [{name: mine[number] for name, mine in cuts.items() if number < len(mine)} for number in range(most)]


def _started(stack: ExitStack, command: Sequence[str], count: int) -> Iterator[Node]:
    """So many nodes, one after the other; while one is in use, the next start."""
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
