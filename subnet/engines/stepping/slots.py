"""Assignment of the context's sequences to choices, with reuse of common prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subnet.engines.stepping.stepping_choice import Choice
from subnet.engines.stepping.stepping_context import Context


class Slots:
    """Sequences of a context. With `prompt_cache`, a choice reuses the tokens that an earlier one left in its slot."""

    def __init__(self, context: Context, slot_count: int, prompt_cache: bool) -> None:
        self._context = context
        self._prompt_cache = prompt_cache
        self._free: dict[int, Sequence[int]] = dict.fromkeys(range(slot_count), ())

    def __bool__(self) -> bool:
        """Return whether a slot is free."""
        return bool(self._free)

    def assign(self, choice: Choice) -> None:
        """Assign the free slot with the longest common prefix, and reuse that prefix.

        The last token of the choice is never reused, because its logits are needed.
        """
        slot = max(
            self._free,
            key=lambda slot: (common_prefix_length(self._free[slot], choice.tokens), -len(self._free[slot])),
        )
        shared = min(common_prefix_length(self._free.pop(slot), choice.tokens), choice.pending - 1)
        choice.slot = slot
        choice.computed = self._context.truncate(slot, shared if self._prompt_cache else 0)
        if choice.run.cached_tokens is None:
            choice.run.cached_tokens = choice.computed

    def copy_prompt(self, choice: Choice) -> None:
        """Copy the prompt from the leader, another choice of the same run, once that has processed it."""
        leader = choice.leader
        if leader is None or leader.computed < len(choice.run.job.prompt):
            return
        common = common_prefix_length(leader.tokens[: leader.computed], choice.tokens)
        shared = min(common, choice.pending + choice.computed - 1)
        self._context.copy(leader.slot, choice.slot)
        choice.computed = self._context.truncate(choice.slot, shared)
        choice.leader = None

    def release(self, choice: Choice) -> None:
        """Free the slot of the choice, with its contents for reuse."""
        self._free[choice.slot] = choice.tokens[: choice.computed]

    def reset(self, choice: Choice) -> None:
        """Free the slot of the choice and clear its contents, which may be inconsistent."""
        choice.computed = self._context.truncate(choice.slot, 0)
        self.release(choice)


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(first), len(second))
    differences = np.flatnonzero(np.array(first[:length]) != np.array(second[:length]))
    return int(differences[0]) if differences.size else length
