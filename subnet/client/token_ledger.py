"""The ledger of the token lane: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from random import getrandbits

import msgspec
import numpy as np

from subnet.client.ledger import Ledger
from subnet.client.policies import Want
from subnet.errors import WireError
from subnet.generation import Delta, Sampling
from subnet.messages import ChoiceStart, Generate
from subnet.tensors import TokenIds, pack

NOTHING = pack(np.empty(0, np.int32))


class Choice:
    """One of the answers: the tokens delivered so far, and whether it is complete."""

    __slots__ = ("finished", "index", "tokens")

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.finished = False


class TokenLedger(Ledger[Delta]):
    """`prompt` is private to it and never written to; `sampling` always has a seed, and `seeded` tells whether the
    caller chose it.
    """

    __slots__ = ("_most", "_with_logprobs", "choices", "prompt", "sampling", "seeded", "text")

    lane = "token"
    choices: list[Choice]

    def __init__(
        self,
        model: str | None,
        prompt: TokenIds,
        sampling: Sampling,
        choices: int,
        text: str | None,
        key: str | None = None,
    ) -> None:
        super().__init__(model, len(prompt), Want(prompt, key))
        self.prompt = prompt
        self.text = text
        seed = getrandbits(63) if sampling.seed is None else sampling.seed
        self.sampling = msgspec.structs.replace(sampling, seed=seed)
        self._most = 2**63 if sampling.max_tokens is None else sampling.max_tokens
        self._with_logprobs = sampling.logprobs is not None
        self.seeded = sampling.seed is not None
        self.choices = [Choice(index) for index in range(choices)]

    @property
    def unfinished(self) -> list[Choice]:
        return [choice for choice in self.choices if not choice.finished]

    @property
    def delivered(self) -> int:
        return sum(len(choice.tokens) for choice in self.choices)

    def record(self, delta: Delta) -> None:
        tokens, choices = delta.tokens, self.choices
        if not 0 <= delta.choice < len(choices) or (choice := choices[delta.choice]).finished:
            raise WireError("a delta for a choice that was not asked for, or is complete")
        if len(choice.tokens) + len(tokens) > self._most:
            raise WireError(f"more tokens than the {self._most} asked for")
        if self._with_logprobs and len(delta.logprobs or ()) != len(tokens):
            raise WireError("tokens without the logprobs asked for")
        choice.tokens += tokens
        if delta.finish_reason is not None:
            choice.finished = True

    def request(self, choices: Sequence[Choice], *, with_delivered: bool = True) -> Generate:
        """Ask a node for what is missing of `choices`; without what was delivered, for them from their beginning."""
        return Generate(
            model=self.model,
            prompt=pack(self.prompt),
            sampling=self.sampling,
            starts=tuple(_start(choice, choice.tokens if with_delivered else []) for choice in choices),
            text=self.text,
        )

    def close_full(self) -> list[Delta]:
        limit = self.sampling.max_tokens
        full = [choice for choice in self.unfinished if limit is not None and len(choice.tokens) >= limit]
        for choice in full:
            choice.finished = True
        return [Delta(choice.index, [], finish_reason="length") for choice in full]


def _start(choice: Choice, delivered: list[int]) -> ChoiceStart:
    return ChoiceStart(choice.index, pack(np.array(delivered, np.int32)) if delivered else NOTHING)
