"""Assignment of the context's sequences to choices, with reuse of common prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subnet.engines.stepping.stepping_choice import Choice
from subnet.engines.stepping.stepping_context import Context


class Slots:
    """Sequences of a context. With `prompt_cache`, a choice reuses the pieces of a prompt that an earlier one left in
    its slot.

    Only whole pieces are reused, because the rest of a prompt and the answer were decoded in other batches than this
    prompt would be, with other rounding. So the cache has no influence on answers.
    """

    def __init__(self, context: Context, slot_count: int, prompt_cache: bool) -> None:
        self._context = context
        self._prompt_cache = prompt_cache
        self._free: dict[int, Sequence[int]] = dict.fromkeys(range(slot_count), ())

    def __bool__(self) -> bool:
        """Return whether a slot is free."""
        return bool(self._free)

    def assign(self, choice: Choice) -> None:
        """Assign the free slot with the longest reusable prefix, and reuse that prefix.

        The last piece of the prompt is never reused, because the logits after it are needed.
        """
        prompt = choice.tokens[: len(choice.run.job.prompt)]
        shared = {slot: common_prefix_length(tokens, prompt[:-1]) for slot, tokens in self._free.items()}
        slot = max(self._free, key=lambda slot: (self._whole_pieces(shared[slot]), -len(self._free[slot])))
        del self._free[slot]
        choice.slot = slot
        choice.computed = self._context.truncate(slot, self._whole_pieces(shared[slot]) if self._prompt_cache else 0)
        if choice.run.cached_tokens is None:
            choice.run.cached_tokens = choice.computed

    def copy_prompt(self, choice: Choice, leader: Choice) -> None:
        """Copy the prompt from the leader, another choice of the same run, which has decoded it."""
        length = len(choice.run.job.prompt)
        self._context.copy(leader.slot, choice.slot)
        choice.computed = self._context.truncate(choice.slot, length)
        choice.leader = None

    def release(self, choice: Choice) -> None:
        """Free the slot of the choice, with its contents for reuse."""
        length = min(choice.computed, len(choice.run.job.prompt))
        self._free[choice.slot] = choice.tokens[: self._whole_pieces(length)]

    def reset(self, choice: Choice) -> None:
        """Free the slot of the choice and clear its contents, which may be inconsistent."""
        choice.computed = self._context.truncate(choice.slot, 0)
        self.release(choice)

    def _whole_pieces(self, length: int) -> int:
        return length - length % self._context.piece_length


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(first), len(second))
    differences = np.flatnonzero(np.array(first[:length]) != np.array(second[:length]))
    return int(differences[0]) if differences.size else length
