"""Which sequence of the context a choice gets: the free one that already holds most of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subnet.engines.stepping.choice import Choice
from subnet.engines.stepping.context import Context


class Slots:
    """The sequences of a context. What a choice leaves behind in one stays there for a later choice to begin with,
    if `cache` says so."""

    def __init__(self, context: Context, count: int, cache: bool) -> None:
        self._context = context
        self._cache = cache
        self._left: dict[int, Sequence[int]] = dict.fromkeys(range(count), ())

    def __bool__(self) -> bool:
        """Whether one is free."""
        return bool(self._left)

    def take(self, choice: Choice) -> None:
        """Give the choice a free slot, and as many of its tokens as are there already.

        The last token is never among them: its logits are needed.
        """
        slot = max(self._left, key=lambda slot: (common(self._left[slot], choice.tokens), -len(self._left[slot])))
        shared = min(common(self._left.pop(slot), choice.tokens), choice.pending - 1)
        choice.slot = slot
        choice.held = self._context.keep(slot, shared if self._cache else 0)
        if choice.run.cached is None:
            choice.run.cached = choice.held

    def follow(self, choice: Choice) -> None:
        """Once its leader, another choice of the same run, holds the prompt, take that over."""
        leader = choice.leader
        if leader is None or leader.held < len(choice.run.job.prompt):
            return
        shared = min(common(leader.tokens[: leader.held], choice.tokens), choice.pending + choice.held - 1)
        self._context.copy(leader.slot, choice.slot)
        choice.held = self._context.keep(choice.slot, shared)
        choice.leader = None

    def give_back(self, choice: Choice) -> None:
        self._left[choice.slot] = choice.tokens[: choice.held]

    def wipe(self, choice: Choice) -> None:
        """Give back a slot whose contents are in doubt."""
        choice.held = self._context.keep(choice.slot, 0)
        self.give_back(choice)


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    size = min(len(left), len(right))
    differ = np.flatnonzero(np.array(left[:size]) != np.array(right[:size]))
    return int(differ[0]) if differ.size else size
